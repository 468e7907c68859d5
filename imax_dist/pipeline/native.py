"""Stage 2: the guidance image at native size, made by rank 0 alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from imax_dist.events import Listener
from imax_dist.method.flow import endpoint
from imax_dist.method.guidance import Step
from imax_dist.models.base import FlowModel
from imax_dist.models.cfg_execution import CfgExecution, two_passes
from imax_dist.models.conditioning import Conditioning
from imax_dist.models.token_shards import TokenSequence
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import single_rank
from imax_dist.pipeline.noise import draw_noise
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.positions import ORIGIN, native_tables
from imax_dist.pipeline.sampler import AfterStep, denoise
from imax_dist.shapes import Latents, Pixels


@dataclass
class NativePass:
    """Where a pass stands: its latents, and each step's endpoint if a reference wants them."""

    latents: Latents
    step: int = 0
    endpoints: list[Latents] = field(default_factory=list)
    pixels: Pixels | None = None
    """The picture itself, (1, 3, H, W) in [-1, 1], where there is one that needs no decoding: a guide."""


def start_native(plan: RenderPlan, model: FlowModel) -> NativePass:
    """Pure noise at native size."""
    return NativePass(draw_noise(plan.request.seed, "native", grid=plan.native_grid, model=model))


def run_native(
    plan: RenderPlan,
    model: FlowModel,
    conditioning: Conditioning,
    state: NativePass,
    *,
    listen: Listener,
    after_step: AfterStep,
    guidance_passes: CfgExecution = two_passes,
) -> NativePass:
    """Denoise ``state`` to the end with the positions, attention and text the model was trained with."""
    tables = native_tables(plan, model)
    alone = single_rank()
    sequence = TokenSequence(alone, TorchEngine(alone), ORIGIN, guidance_passes=guidance_passes)
    keep = plan.method.reference.kind == "per_step"

    def velocity(x: Latents, step: Step) -> Latents:
        predicted = model.velocity(
            x.to(model.dtype),
            step.sigma,
            conditioning,
            tables=tables,
            sequence=sequence,
            guidance_scale=plan.native_guidance_scale,
        ).to(x.dtype)
        if keep:
            state.endpoints.append(endpoint(x, predicted, step.sigma))
        return predicted

    def remember(step: int, x: Latents) -> None:
        state.step, state.latents = step, x
        after_step(step, x)

    with torch.no_grad():
        state.latents = denoise(
            state.latents,
            plan.native_sigmas,
            velocity,
            stage="native",
            listen=listen,
            after_step=remember,
            first=state.step,
        )
    return state
