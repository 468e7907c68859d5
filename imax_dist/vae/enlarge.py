"""Bicubic resizing row by row: the numbers of ``F.interpolate``, without the whole picture in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import ImageSize
from imax_dist.shapes import Pixels

SHARPNESS = -0.75
"""The cubic kernel's parameter in torch (Keys, 1981)."""
SHARPNESS_SHRINKING = -0.5
"""The same where a picture gets smaller, antialiased."""

ReadRows = Callable[[int, int], Tensor]
Enlarge = Callable[[int, int], ReadRows]
"""Told which rows [top, bottom) of a picture this rank reads, it gives them, (rows, width, 3) in [-1, 1]."""


def enlarged_rows(pixels: Pixels, size: ImageSize, *, dtype: torch.dtype) -> ReadRows:
    """Rows [top, bottom) of (1, 3, h, w) ``pixels`` at ``size``, as (rows, width, 3) in [-1, 1].

    Widened once, then each row from four of the source's; positions in the pixels' own precision (at least
    float32), as torch has them.
    """
    height = pixels.shape[2]
    precise = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    wide = F.interpolate(precise, size=(height, size.width), mode="bicubic", align_corners=False)
    source = wide[0].permute(1, 2, 0).contiguous()
    scale = torch.tensor(height, dtype=precise.dtype) / size.height

    def rows(top: int, bottom: int) -> Tensor:
        place = scale * (torch.arange(top, bottom, dtype=precise.dtype) + 0.5) - 0.5
        first = place.floor()
        result: Tensor | float = 0.0
        for tap, weight in enumerate(cubic_weights(place - first)):
            index = (first.long() + tap - 1).clamp(0, height - 1).to(source.device)
            result = result + weight.to(source.device)[:, None, None] * source[index]
        assert isinstance(result, Tensor)
        return result.clamp_(-1.0, 1.0).to(dtype)

    return rows


def cubic_weights(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the pixels at -1, 0, 1, 2 for a place ``t`` in [0, 1) after pixel 0."""

    def near(x: Tensor) -> Tensor:
        return ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1

    def far(x: Tensor) -> Tensor:
        return ((SHARPNESS * x - 5 * SHARPNESS) * x + 8 * SHARPNESS) * x - 4 * SHARPNESS

    return far(t + 1), near(t), near(1 - t), far(2 - t)


def resized_rows(read: ReadRows, old: ImageSize, new: ImageSize) -> ReadRows:
    """Rows [top, bottom) at ``new``, (3, rows, width), of a picture that ``read`` gives so at ``old``."""
    if old == new:
        return read
    index, weight = _taps(old.height, new.height)
    index = index.clamp(0, old.height - 1)

    def rows(top: int, bottom: int) -> Tensor:
        places, shares = index[top:bottom], weight[top:bottom]
        first, last = int(places.min()), int(places.max()) + 1
        source = read(first, last)
        size = (last - first, new.width)
        wide = F.interpolate(source[None], size=size, mode="bicubic", antialias=new.width < old.width)[0]
        places, shares = (places - first).to(wide.device), shares.to(wide)
        result = torch.zeros_like(wide[:, :1]).expand(-1, bottom - top, -1)
        for tap in range(places.shape[1]):
            result = result + shares[:, tap, None] * wide[:, places[:, tap]]
        return result

    return rows


def _taps(old: int, new: int) -> tuple[Tensor, Tensor]:
    """For each new sample the old ones it is made of, (new, taps), and their weights in float64."""
    scale = old / new
    wider = max(scale, 1.0)
    centre = scale * (torch.arange(new, dtype=torch.float64) + 0.5) - 0.5
    first = (centre - 2 * wider).ceil()
    index = first[:, None] + torch.arange(math.ceil(4 * wider) + 1)
    distance = (index - centre[:, None]).abs() / wider
    weight = _cubic(distance, SHARPNESS if scale <= 1.0 else SHARPNESS_SHRINKING)
    if scale > 1.0:
        weight = weight * ((index >= 0) & (index < old))
        weight = weight / weight.sum(dim=1, keepdim=True)
    return index.long(), weight


def _cubic(x: Tensor, sharpness: float) -> Tensor:
    near = ((sharpness + 2) * x - (sharpness + 3)) * x * x + 1
    far = ((sharpness * x - 5 * sharpness) * x + 8 * sharpness) * x - 4 * sharpness
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
