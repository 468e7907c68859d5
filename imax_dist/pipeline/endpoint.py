"""Stage 3: the native image at the target's size, as the reference the extrapolated pass is pulled to.

Constant reference: the finished image. Per-step reference: its endpoint at every native step, looked up
by sigma (HiFlow's direction term; DECISIONS 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.models.base import FlowModel
from imax_dist.pipeline.native import NativePass
from imax_dist.pipeline.noise import draw_noise
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents, Pixels


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
    return plan.reference_sigmas


@torch.no_grad()
def native_pixels(plan: RenderPlan, model: FlowModel, native: NativePass) -> Pixels:
    """The pictures the reference is made of, (N, 3, h, w) in [-1, 1]: the native pass's, or a later one's."""
    if native.pixels is not None:
        return native.pixels
    return torch.cat([model.decode_image(image).clamp(-1.0, 1.0) for image in _images(plan, native)])


@torch.no_grad()
def encoded_reference(plan: RenderPlan, runner: VaeRunner, pixels: Pixels) -> Latents:
    """Enlarge the native pictures (bicubic) and encode them again, the authors' way; all ranks together."""
    noise = None
    if plan.method.reference.posterior == "sample":
        noise = draw_noise(plan.request.seed, "posterior", grid=plan.grid, model=runner.model)
    return torch.cat(
        [runner.encode_enlarged(image, plan.render_size, noise=noise) for image in pixels.split(1)]
    )


@torch.no_grad()
def enlarged_latents(plan: RenderPlan, native: NativePass) -> Latents:
    """Enlarge the latents themselves: cheap, but a VAE's latents do not scale like an image."""
    size = (plan.grid.height, plan.grid.width)
    images = [F.interpolate(x, size=size, mode="bicubic", align_corners=False) for x in _images(plan, native)]
    return torch.cat(images)


def _images(plan: RenderPlan, native: NativePass) -> list[Latents]:
    if plan.method.reference.kind == "constant":
        return [native.latents]
    return native.endpoints[-len(plan.reference_sigmas) :]
