"""The picture that an editor is shown, as latents of a pass's size: for tokens of its own, or for channels.

FLUX.1 Kontext and Qwen-Image-Edit see the picture whole. FLUX.1 Fill sees it with the region grey, and the
region's mask, each block of pixels that makes one latent pixel as so many channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.geometry import ImageSize
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents, Pixels


def shown_by_all(plan: PassPlan, vae: VaeRunner, picture: Pixels | None) -> Latents | None:
    """What an editor is shown in ``plan``, encoded by all ranks together; None where it is shown nothing."""
    if picture is None or plan.context == "none":
        return None
    pixels, mask = _seen(plan, vae.model, picture)
    return _with_mask(vae.encode_enlarged(pixels, plan.render_size, noise=None), mask, vae.model)


@torch.no_grad()
def shown_alone(plan: PassPlan, model: FlowModel, picture: Pixels | None) -> Latents | None:
    """The same by one rank."""
    if picture is None or plan.context == "none":
        return None
    pixels, mask = _seen(plan, model, picture)
    return _with_mask(model.encode_image(_resized(pixels, plan.render_size), noise=None), mask, model)


def _seen(plan: PassPlan, model: FlowModel, picture: Pixels) -> tuple[Pixels, Pixels | None]:
    """The picture, no larger than the pass, and the mask, 1 where it is grey."""
    pixels = picture.to(model.device, torch.promote_types(model.dtype, torch.float32))
    size, region = plan.render_size, plan.region
    if region is None or plan.context != "channels":
        larger = pixels.shape[2] > size.height or pixels.shape[3] > size.width
        return _resized(pixels, size) if larger else pixels, None
    mask = pixels.new_zeros(1, 1, size.height, size.width)
    down, across = region.top + region.height, region.left + region.width
    mask[:, :, region.top : down, region.left : across] = 1.0
    return _resized(pixels, size) * (1.0 - mask), mask


def _resized(pixels: Pixels, size: ImageSize) -> Pixels:
    sides = (size.height, size.width)
    if pixels.shape[2:] == sides:
        return pixels
    resized = F.interpolate(pixels, size=sides, mode="bicubic", antialias=True)
    return resized.clamp(-1.0, 1.0)


def _with_mask(latents: Latents, mask: Pixels | None, model: FlowModel) -> Latents:
    made = latents.to(model.dtype)
    if mask is None:
        return made
    return torch.cat([made, F.pixel_unshuffle(mask, model.spec.vae_factor).to(made)], dim=1)
