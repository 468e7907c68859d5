"""Bicubic enlargement row by row: the numbers of ``F.interpolate``, without the whole picture in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import ImageSize
from imax_dist.shapes import Pixels

SHARPNESS = -0.75
"""The cubic kernel's parameter in torch (Keys, 1981)."""


def enlarged_rows(pixels: Pixels, size: ImageSize, *, dtype: torch.dtype) -> Callable[[int, int], Tensor]:
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
