"""Z-Image's positions: the prompt along axis 0 from 1 on, the image one step beyond its end, padding at 0.

Z-Image's own tables end at 1024 text and 512 x 512 image positions (8192 px); ours are made for the ids at
hand and have no end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.flux.positions import image_position_ids
from imax_dist.models.z_image.packing import padding
from imax_dist.shapes import PositionIds


def text_position_ids(text_tokens: int, *, row: int = 0, column: int = 0) -> PositionIds:
    """(n + 1, row, column) of the prompt's token n, padding included."""
    along = torch.arange(1, text_tokens + 1, dtype=torch.float64)
    return torch.stack([along, *(torch.full_like(along, place) for place in (row, column))], dim=1)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies (``text_tokens`` each, padding included), the image, its padding."""
    texts = [text_position_ids(text_tokens, row=row, column=column) for row, column in copies.offsets]
    image = image_position_ids(grid) + torch.tensor([text_tokens + 1, 0, 0])
    pads: Tensor = image.new_zeros(padding(grid.count), 3)
    return torch.cat([*texts, image, pads])
