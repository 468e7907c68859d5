"""The colours of a picture kept in the poster made from it: the mean of every block, put back at the end.

Neither the autoencoder nor a pass keeps them exactly. What the means of blocks of BLOCK x BLOCK of the
picture's pixels lack is spread as a smooth surface (linear between the blocks' centres, solved so that its
own means are what was lacking), so that there is no seam, and nothing finer than a block is touched.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from imax_dist.output.image.bands import ROWS
from imax_dist.pipeline.decode import DecodedPicture
from imax_dist.pipeline.pixels import shown
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.shapes import Pixels

BLOCK = 16
"""Pixels of the picture along a side."""


def with_colours_of(plan: PosterPlan, poster: DecodedPicture, picture: Pixels) -> DecodedPicture:
    """``poster`` with the colours of ``picture`` (1, 3, h, w): all that the plan renders, at its own size.

    As firmly as the plan holds the picture's layout (``guidance.strength``, at most 1). Both are gone through
    a few rows at a time.
    """
    size, rendered = plan.size, plan.render_size
    axes = (
        (size.height, rendered.height, picture.shape[2]),
        (size.width, rendered.width, picture.shape[3]),
    )
    down, across = (_edges(*axis) for axis in axes)

    def own(top: int, bottom: int) -> Tensor:
        return shown(picture[0, :, top:bottom]).permute(1, 2, 0).cpu()

    wanted = _means(own, picture.shape[2], *(_in_picture(*axis) for axis in axes))
    lacking = wanted - _means(poster.rows, size.height, down, across)
    lacking = lacking * min(1.0, plan.method.guidance.strength)
    held = torch.linalg.solve(_means_of_lines(len(down) - 1), lacking.flatten(1)).view_as(lacking)
    held = torch.linalg.solve(_means_of_lines(len(across) - 1), held.transpose(0, 1).flatten(1))
    heights = held.view(len(across) - 1, len(down) - 1, 3).transpose(0, 1).float()

    def read(top: int, bottom: int) -> Tensor:
        surface = _between(heights, down, torch.arange(top, bottom))
        surface = _between(surface.transpose(0, 1), across, torch.arange(size.width)).transpose(0, 1)
        return (poster.rows(top, bottom) + surface).clamp(0.0, 1.0)

    return DecodedPicture(size, read)


def _edges(length: int, rendered: int, own: int) -> Tensor:
    """Where equal blocks begin and end in ``length`` of the pixels rendered, ``own`` of the picture."""
    count = max(1, round(length * own / rendered / BLOCK))
    return torch.linspace(0.0, length, count + 1, dtype=torch.float64)


def _in_picture(length: int, rendered: int, own: int) -> Tensor:
    """The same edges in the picture."""
    margin = (rendered - length) // 2
    return (_edges(length, rendered, own) + margin) * own / rendered


def _means_of_lines(blocks: int) -> Tensor:
    """(blocks, blocks): each block's mean of lines between the centres, constant beyond the outer ones."""
    if blocks == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    beside = torch.full((blocks - 1,), 1 / 8, dtype=torch.float64)
    own = torch.full((blocks,), 3 / 4, dtype=torch.float64)
    own[0] = own[-1] = 7 / 8
    return torch.diag(own) + torch.diag(beside, 1) + torch.diag(beside, -1)


def _between(heights: Tensor, edges: Tensor, pixels: Tensor) -> Tensor:
    """Those lines through ``heights`` (blocks, ...) at the middles of ``pixels``."""
    last = len(heights) - 1
    place = ((pixels + 0.5) / (edges[1] - edges[0]) - 0.5).clamp(0.0, last)
    before = place.floor().long().clamp(max=max(last - 1, 0))
    share = (place - before).float().view(-1, *(1 for _ in heights.shape[1:]))
    return torch.lerp(heights[before], heights[(before + 1).clamp(max=last)], share)


def _sums(x: Tensor, edges: Tensor) -> Tensor:
    """(blocks, ...): of the rows of ``x`` between ``edges``, a pixel in two blocks by its shares."""
    total = torch.cat([torch.zeros_like(x[:1]), x.cumsum(0)])
    low = edges.floor().long().clamp(0, len(x))
    share = (edges - low).view(-1, *(1 for _ in x.shape[1:]))
    return torch.lerp(total[low], total[(low + 1).clamp(max=len(x))], share.to(x)).diff(dim=0)


def _means(rows: Callable[[int, int], Tensor], length: int, down: Tensor, across: Tensor) -> Tensor:
    """(blocks, blocks, 3): the blocks' means of a picture of ``length`` rows, read a few at a time."""
    sums = torch.zeros(len(down) - 1, len(across) - 1, 3, dtype=torch.float64)
    for top in range(0, length, ROWS):
        band = rows(top, min(top + ROWS, length)).double()
        narrow = _sums(band.transpose(0, 1), across).transpose(0, 1)
        sums += _sums(narrow, (down - top).clamp(0.0, len(band)))
    return sums / (down.diff()[:, None, None] * across.diff()[None, :, None])
