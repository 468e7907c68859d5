"""The colours of a picture kept in the poster made from it: the mean of every block, put back at the end.

Neither the autoencoder nor a pass keeps them exactly. What the means of blocks of BLOCK x BLOCK of the
picture's pixels lack is spread as a smooth surface (linear between the blocks' centres, solved so that its
own means are what was lacking), so that there is no seam, and nothing finer than a block is touched.
"""

from __future__ import annotations

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

    As firmly as the plan holds the picture's layout (``guidance.strength``, at most 1).
    """
    size, rendered = plan.size, plan.render_size
    axes = (
        (size.height, rendered.height, picture.shape[2]),
        (size.width, rendered.width, picture.shape[3]),
    )
    down, across = (_edges(*axis) for axis in axes)
    wanted = _means(shown(picture[0]).permute(1, 2, 0).cpu(), *(_in_picture(*axis) for axis in axes))
    lacking = (wanted - _means_of(poster, down, across)) * min(1.0, plan.method.guidance.strength)
    surface_down, surface_across = (_surface(edges) for edges in (down, across))
    solved = torch.einsum("ij,jkc->ikc", torch.linalg.inv(_overlaps(down) @ surface_down), lacking)
    solved = torch.einsum("kl,ilc->ikc", torch.linalg.inv(_overlaps(across) @ surface_across), solved)
    wide = torch.einsum("kl,ilc->ikc", surface_across, solved)

    def read(top: int, bottom: int) -> Tensor:
        added = torch.einsum("ij,jkc->ikc", surface_down[top:bottom], wide)
        return (poster.rows(top, bottom) + added.float()).clamp(0.0, 1.0)

    return DecodedPicture(size, read)


def _edges(length: int, rendered: int, own: int) -> Tensor:
    """Where equal blocks begin and end in ``length`` of the pixels rendered, ``own`` of the picture."""
    count = max(1, round(length * own / rendered / BLOCK))
    return torch.linspace(0.0, length, count + 1, dtype=torch.float64)


def _in_picture(length: int, rendered: int, own: int) -> tuple[Tensor, int]:
    """The same edges in the picture, and its length."""
    margin = (rendered - length) // 2
    return (_edges(length, rendered, own) + margin) * own / rendered, own


def _overlaps(edges: Tensor, length: int | None = None) -> Tensor:
    """(blocks, pixels): the share that each pixel has in each block's mean."""
    pixels = torch.arange(round(float(edges[-1])) if length is None else length, dtype=torch.float64)
    begin = torch.maximum(edges[:-1, None], pixels)
    end = torch.minimum(edges[1:, None], pixels + 1)
    return (end - begin).clamp(min=0.0) / (edges[1:] - edges[:-1])[:, None]


def _surface(edges: Tensor) -> Tensor:
    """(pixels, blocks): linear between the blocks' centres, constant beyond the outer ones."""
    centres = (edges[1:] + edges[:-1]) / 2
    place = torch.arange(round(float(edges[-1])), dtype=torch.float64) + 0.5
    if len(centres) == 1:
        return torch.ones(len(place), 1, dtype=torch.float64)
    after = torch.searchsorted(centres, place).clamp(1, len(centres) - 1)
    share = ((place - centres[after - 1]) / (centres[after] - centres[after - 1])).clamp(0.0, 1.0)
    weights = torch.zeros(len(place), len(centres), dtype=torch.float64)
    rows = torch.arange(len(place))
    weights[rows, after - 1] = 1.0 - share
    weights[rows, after] = share
    return weights


def _means(picture: Tensor, down: tuple[Tensor, int], across: tuple[Tensor, int]) -> Tensor:
    """(blocks, blocks, 3) of a whole (h, w, 3) picture."""
    narrow = torch.einsum("kl,ilc->ikc", _overlaps(*across).float(), picture.float())
    return torch.einsum("ij,jkc->ikc", _overlaps(*down), narrow.double())


def _means_of(poster: DecodedPicture, down: Tensor, across: Tensor) -> Tensor:
    """The same of a poster, a few rows at a time."""
    rows, columns = _overlaps(down), _overlaps(across).float()
    found = torch.zeros(len(down) - 1, len(across) - 1, 3, dtype=torch.float64)
    for top in range(0, poster.size.height, ROWS):
        bottom = min(top + ROWS, poster.size.height)
        narrow = torch.einsum("kl,ilc->ikc", columns, poster.rows(top, bottom))
        found += torch.einsum("ij,jkc->ikc", rows[:, top:bottom], narrow.double())
    return found
