"""A region of a finished poster rendered again: what is replaced, in latents at each step and in the picture.

The mask is 1 inside and falls to 0 at the region's border over FEATHER pixels, but not at the poster's own
border. It is the product of one ramp down and one across, so no more than a line of it is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imax_dist.geometry import ImageSize, Region
from imax_dist.method.flow import interpolate
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.decode import DecodedPicture
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.pixels import shown
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.shapes import Latents, Pixels

FEATHER = 64
"""Pixels; a quarter of the region's side, if that is less."""


@dataclass(frozen=True)
class Outside:
    """What surrounds the region in a pass: the poster's own latents under the pass's noise."""

    mask: Latents
    """(1, 1, H, W): 1 where the pass decides."""
    noise: Latents

    @classmethod
    def of(cls, plan: PassPlan, model: FlowModel) -> Outside | None:
        """None for a pass without a region."""
        if plan.region is None:
            return None
        noise = pass_noise(plan, model)
        down, across = ramps(plan.region, plan.render_size)
        factor = plan.spec.vae_factor
        mask = torch.outer(*(line.reshape(-1, factor).mean(1) for line in (down, across)))
        return cls(mask[None, None].to(noise), noise)

    def blend(self, x: Latents, reference: Latents, sigma: float) -> Latents:
        """``x`` at noise level ``sigma``, blended into the noised poster around the region."""
        return torch.lerp(interpolate(reference, self.noise, sigma).to(x), x, self.mask.to(x))


def ramps(region: Region, size: ImageSize) -> tuple[Tensor, Tensor]:
    """The mask's factors down and across a picture of ``size``, float64."""
    return (
        _ramp(region.top, region.height, size.height),
        _ramp(region.left, region.width, size.width),
    )


def _ramp(start: int, length: int, whole: int) -> Tensor:
    """1 between ``start`` and ``start + length``, 0 outside, with a smooth step inside each of its ends."""
    feather = min(FEATHER, length // 4)
    place = torch.arange(whole, dtype=torch.float64) + 0.5
    rising = (place - start) / feather if start else torch.where(place > start, 1.0, 0.0)
    end = start + length
    falling = (end - place) / feather if end < whole else torch.ones_like(place)
    return _smooth(rising) * _smooth(falling)


def _smooth(x: Tensor) -> Tensor:
    """3 x^2 - 2 x^3 between 0 and 1."""
    x = x.clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def redone(plan: PosterPlan, picture: DecodedPicture, poster: Pixels) -> DecodedPicture:
    """The poster with the region from ``picture``: where the mask is 0, its own values."""
    region, size, rendered = plan.region, plan.size, plan.render_size
    if region is None:
        return picture
    down, across = (line.float() for line in ramps(region, size))
    left, over = (rendered.width - size.width) // 2, (rendered.height - size.height) // 2
    old = poster[0, :, over : over + size.height, left : left + size.width]

    def read(top: int, bottom: int) -> Tensor:
        kept = shown(old[:, top:bottom].cpu()).permute(1, 2, 0)
        mask = torch.outer(down[top:bottom], across)[..., None]
        return torch.where(mask > 0.0, torch.lerp(kept, picture.rows(top, bottom), mask), kept)

    return DecodedPicture(size, read)
