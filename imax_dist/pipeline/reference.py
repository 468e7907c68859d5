"""The picture before at a pass's own size, as the reference the pass is pulled to.

Constant reference: the finished picture. Per-step reference: its endpoint at every step, looked up by sigma
(HiFlow's direction term; DECISIONS 3).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.method.flow import interpolate
from imax_dist.method.guidance import reference_at
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.noise import draw_noise
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.state import PassState
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents, Pixels


@torch.no_grad()
def finished_pictures(plan: PassPlan, model: FlowModel, before: PassState) -> Pixels:
    """The pictures, (N, 3, h, w) in [-1, 1], that the reference of ``plan`` is made of."""
    if before.pictures is not None:
        return before.pictures
    return torch.cat([model.decode_image(image).clamp(-1.0, 1.0) for image in images_for(plan, before)])


@torch.no_grad()
def encoded_reference(plan: PassPlan, vae: VaeRunner, pictures: Pixels) -> Latents:
    """Enlarge the pictures (bicubic) and encode them again, the authors' way; all ranks together."""
    noise = None
    if plan.method.reference.posterior == "sample":
        noise = draw_noise(plan.request.seed, "posterior", grid=plan.grid, model=vae.model)
    parts = [vae.encode_enlarged(image, plan.render_size, noise=noise) for image in pictures.split(1)]
    return torch.cat(parts)


@torch.no_grad()
def enlarged_latents(plan: PassPlan, before: PassState) -> Latents:
    """Enlarge the latents themselves: cheap, but a VAE's latents do not scale like an image."""
    size = (plan.grid.height, plan.grid.width)
    images = [
        F.interpolate(x, size=size, mode="bicubic", align_corners=False) for x in images_for(plan, before)
    ]
    return torch.cat(images)


def with_reference(plan: PassPlan, start: PassState, reference: Latents) -> PassState:
    """``start`` with its reference, and the latents to start from where they depend on it."""
    sigma, latents = plan.sigmas[0], start.latents
    if sigma < 1.0:
        image = reference_at(reference, plan.reference_sigmas, sigma)
        latents = interpolate(image, start.latents, sigma)
    return replace(start, latents=latents, reference=reference, pictures=None)


def images_for(plan: PassPlan, before: PassState) -> tuple[Latents, ...]:
    """What ``plan`` is guided by: the picture before it, or its endpoint at each of the plan's steps."""
    if plan.constant_reference:
        return (before.latents,)
    return before.endpoints[-len(plan.reference_sigmas) :]
