"""Lumina-Image-2.0's positions: (caption token, 0, 0), then (caption length, row, column)."""

from __future__ import annotations

import torch

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies, text_position_ids
from imax_dist.models.flux.positions import image_position_ids
from imax_dist.shapes import PositionIds


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, each at its own row and column, then the image."""
    text = text_position_ids(text_tokens, copies)
    text[:, 0] = torch.arange(text_tokens, dtype=text.dtype).repeat(copies.literal)
    image = image_position_ids(grid)
    image[:, 0] = text_tokens
    return torch.cat([text, image])
