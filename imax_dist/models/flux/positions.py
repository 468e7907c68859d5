"""Positions as an input: the transformer's id arguments carry the rotary table itself.

FluxTransformer2DModel concatenates ``txt_ids`` and ``img_ids`` and calls its ``pos_embed`` on them.
With ``TableAsIds`` in that place the "ids" of a token are its cosines and sines, so that every position
rule and the attention scale are inputs, and nothing is set on the model between calls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies, text_position_ids
from imax_dist.shapes import PositionIds, RopeTable


class TableAsIds(nn.Module):
    """Stands in for FluxPosEmbed: (tokens, 2 head_dim) -> cos, sin, each (tokens, head_dim)."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = ids.chunk(2, dim=-1)
        return cos, sin


def table_as_ids(table: RopeTable) -> Tensor:
    """The table in the form ``TableAsIds`` takes."""
    return torch.cat([table.cos, table.sin], dim=-1)


def ids_of(tables: tuple[RopeTable, RopeTable]) -> tuple[Tensor, Tensor]:
    """``txt_ids`` and ``img_ids`` of a rank's tables (text, image)."""
    text, image = tables
    return table_as_ids(text), table_as_ids(image)


def image_position_ids(grid: TokenGrid) -> PositionIds:
    """(0, row, column) of every image token, row by row."""
    rows = torch.arange(grid.height, dtype=torch.float64).repeat_interleave(grid.width)
    columns = torch.arange(grid.width, dtype=torch.float64).repeat(grid.height)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=1)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, then the image, as FLUX orders its joint sequence."""
    return torch.cat([text_position_ids(text_tokens, copies), image_position_ids(grid)])
