"""Qwen-Image's positions: the image centred on the origin, the prompt on the diagonal beyond its corner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.shapes import PositionIds


class TableAsShapes(nn.Module):
    """Stands in for QwenEmbedRope: the ``img_shapes`` argument carries the rotary table itself.

    Qwen-Image's own tables hold positions -4096 to 4095 and cut silently what lies beyond.
    """

    def forward(self, img_shapes: tuple[Tensor, Tensor], **own_facts: Any) -> tuple[Tensor, Tensor]:
        del own_facts  # text length and device, which the table already has
        return img_shapes


def image_position_ids(grid: TokenGrid) -> PositionIds:
    """(frame 0, row, column), rows from -ceil(h / 2) to floor(h / 2) - 1, columns likewise."""
    rows, columns = (
        torch.arange(side, dtype=torch.float64) - _half(side) for side in (grid.height, grid.width)
    )
    rows, columns = rows.repeat_interleave(grid.width), columns.repeat(grid.height)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=1)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, then the image.

    Token n of the prompt stands at n + max(h // 2, w // 2) on all three axes, just beyond the corner of
    the image of h x w tokens. A copy stands to its cell as the trained text to its image.
    """
    cell = _cell(grid, copies)
    start = max(cell.height // 2, cell.width // 2)
    along = start + torch.arange(text_tokens, dtype=torch.float64)
    diagonal = torch.stack([along, along, along], dim=1)
    texts = [
        diagonal + torch.tensor([0.0, row + _half(cell.height), column + _half(cell.width)])
        for row, column in copies.offsets
    ]
    corner = torch.tensor([0.0, _half(grid.height), _half(grid.width)])
    return torch.cat([*(text - corner for text in texts), image_position_ids(grid)])


def _half(side: int) -> int:
    """Tokens before the origin on a side of the image."""
    return side - side // 2


def _cell(grid: TokenGrid, copies: TextCopies) -> TokenGrid:
    """The cell a text copy belongs to: the distance between copies, or the whole image."""
    rows, columns = zip(*copies.offsets, strict=True)
    return TokenGrid(
        height=min((row for row in rows if row > 0), default=grid.height),
        width=min((column for column in columns if column > 0), default=grid.width),
    )
