"""FLUX.2's positions: (time, row, column, place in the prompt)."""

from __future__ import annotations

import torch

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.flux.positions import image_position_ids
from imax_dist.shapes import PositionIds


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, (0, row, column of the copy, n) for token n, then the image, (0, row, column, 0)."""
    place = torch.arange(text_tokens, dtype=torch.float64)
    zero = torch.zeros_like(place)
    texts = [torch.stack([zero, zero + row, zero + column, place], dim=1) for row, column in copies.offsets]
    image = image_position_ids(grid)
    return torch.cat([*texts, torch.cat([image, image.new_zeros(len(image), 1)], dim=1)])
