"""Lumina-Next's positions: (row, column) of an image token; the caption has none."""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.shapes import PositionIds, RopeTable


def image_position_ids(grid: TokenGrid) -> PositionIds:
    """(row, column) of every token, row by row."""
    rows = torch.arange(grid.height, dtype=torch.float64).repeat_interleave(grid.width)
    columns = torch.arange(grid.width, dtype=torch.float64).repeat(grid.height)
    return torch.stack([rows, columns], dim=1)


def interleaved(table: RopeTable) -> RopeTable:
    """Our table (rows' pairs, then columns') in Lumina-Next's order: a row's pair, a column's pair, ..."""
    return RopeTable(*(_alternate(part) for part in table))


def _alternate(part: Tensor) -> Tensor:
    pairs: Tensor = part.unflatten(1, (2, -1, 2))
    return pairs.transpose(1, 2).flatten(1)
