"""Stage 4: the target-size pass. All ranks share each step's tokens; guidance acts on the whole latent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch

from imax_dist.events import Listener
from imax_dist.geometry import LatentGrid
from imax_dist.method import patch_shift
from imax_dist.method.baselines.skip_residual import with_skip_residual
from imax_dist.method.flow import endpoint
from imax_dist.method.guidance import Step, guided_velocity
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.models.token_shards import TokenSequence
from imax_dist.pipeline.endpoint import Reference
from imax_dist.pipeline.noise import start_noise
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.positions import PositionTables
from imax_dist.pipeline.sampler import AfterStep, BeforeStep, Velocity, denoise
from imax_dist.shapes import Latents

Observer: TypeAlias = Callable[[Latents], None]


def run_extrapolated(
    plan: RenderPlan,
    velocity: Velocity,
    x: Latents,
    *,
    first: int,
    stage: str,
    listen: Listener,
    after_step: AfterStep,
    before_step: BeforeStep | None = None,
) -> Latents:
    """Denoise ``x`` from step ``first`` to the end with a velocity of ``guided``."""
    with torch.no_grad():
        return denoise(
            x,
            plan.sigmas,
            velocity,
            stage=stage,
            listen=listen,
            after_step=after_step,
            first=first,
            before_step=before_step,
            skipped=plan.skipped,
        )


def skip_residual(plan: RenderPlan, model: FlowModel, reference: Reference | None) -> BeforeStep | None:
    """DemoFusion's blend, if the recipe has it; its noise is that the pass starts from, on every rank."""
    if reference is None or not plan.method.skip_residual:
        return None
    noise = start_noise(plan, model)

    def blend(x: Latents, step: Step) -> Latents:
        return with_skip_residual(x, reference.at(step.sigma), noise, step.sigma)

    return blend


def network_velocity(
    plan: RenderPlan, model: FlowModel, conditioning: Conditioning, *, sequence: TokenSequence
) -> Velocity:
    """What the network says at a step, unguided, on the plain or the shifted grid; the same on every rank."""
    tables = PositionTables(plan, model)

    def predict(x: Latents, step: Step) -> Latents:
        grid = LatentGrid(height=x.shape[2], width=x.shape[3]).tokens(plan.spec.patch)
        return model.velocity(
            x.to(model.dtype),
            step.sigma,
            conditioning,
            tables=partial(tables.at, grid, step.sigma),
            sequence=sequence,
            guidance_scale=plan.guidance_scale,
        ).to(x.dtype)

    def velocity(x: Latents, step: Step) -> Latents:
        if plan.method.patch_shift and patch_shift.is_shifted(step.index):
            return patch_shift.shift_out(predict(patch_shift.shift_in(x), step))
        return predict(x, step)

    return velocity


def guided(
    plan: RenderPlan, network: Velocity, reference: Reference | None, *, observe: Observer | None = None
) -> Velocity:
    """``network`` pulled to the reference, as a function of the whole latents.

    ``observe`` is given each step's own endpoint before it is guided.
    """
    project = plan.project

    def velocity(x: Latents, step: Step) -> Latents:
        predicted = network(x, step)
        if observe is not None:
            observe(endpoint(x, predicted, step.sigma))
        weights = plan.weights(step)
        if reference is None or not weights.active:
            return predicted
        return guided_velocity(
            predicted, x, reference.at(step.sigma), step.sigma, project=project, weights=weights
        )

    return velocity
