"""Stage 3: the native image at the target's size, as the reference the extrapolated pass is pulled to.

Constant reference: the finished image. Per-step reference: its endpoint at every native step, looked up
by sigma (HiFlow's direction term; DECISIONS 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import LatentGrid
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.native import NativePass
from imax_dist.pipeline.noise import draw_noise
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.shapes import Latents


class Reference(NamedTuple):
    """Latents (N, C, H, W) and the sigma each belongs to; N is 1 for a constant reference."""

    latents: Latents
    sigmas: tuple[float, ...]

    def at(self, sigma: float) -> Latents:
        """The reference at ``sigma``, between two native steps by linear interpolation in sigma."""
        if len(self.sigmas) == 1 or sigma >= self.sigmas[0]:
            return self.latents[:1]
        if sigma <= self.sigmas[-1]:
            return self.latents[-1:]
        later = next(i for i, own in enumerate(self.sigmas) if own <= sigma)
        above, below = self.sigmas[later - 1], self.sigmas[later]
        share = (above - sigma) / (above - below)
        return torch.lerp(self.latents[later - 1 : later], self.latents[later : later + 1], share)


def reference_sigmas(plan: RenderPlan) -> tuple[float, ...]:
    """The sigmas a reference of this plan has latents for."""
    return plan.native_sigmas[:-1] if plan.method.reference.kind == "per_step" else (0.0,)


@torch.no_grad()
def upsample_reference(plan: RenderPlan, model: FlowModel, native: NativePass) -> Latents:
    """The reference's latents at the target's size, (N, C, H, W)."""
    per_step = plan.method.reference.kind == "per_step"
    images = native.endpoints if per_step else [native.latents]
    upsample = UPSAMPLERS[plan.method.reference.upsample]
    return torch.cat([upsample(plan, model, image) for image in images])


def upsample_pixels(plan: RenderPlan, model: FlowModel, latents: Latents) -> Latents:
    """Decode, enlarge the pixels (bicubic), encode again; the authors' way."""
    pixels = model.decode_image(latents).clamp(-1.0, 1.0)
    size = (plan.render_size.height, plan.render_size.width)
    enlarged = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False).clamp(-1.0, 1.0)
    return model.encode_image(enlarged, noise=_posterior_noise(plan, model)).to(latents.dtype)


def upsample_latents(plan: RenderPlan, model: FlowModel, latents: Latents) -> Latents:
    """Enlarge the latents themselves: cheap, but a VAE's latents do not scale like an image."""
    del model
    return _bicubic(latents, plan.grid)


def _bicubic(x: Tensor, grid: LatentGrid) -> Tensor:
    return F.interpolate(x, size=(grid.height, grid.width), mode="bicubic", align_corners=False)


def _posterior_noise(plan: RenderPlan, model: FlowModel) -> Latents | None:
    if plan.method.reference.posterior == "mean":
        return None
    return draw_noise(plan.request.seed, "posterior", grid=plan.grid, model=model)


UPSAMPLERS: dict[str, Callable[[RenderPlan, FlowModel, Latents], Latents]] = {
    "pixels": upsample_pixels,
    "latents": upsample_latents,
}
