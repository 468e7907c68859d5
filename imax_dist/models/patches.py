"""Latents to tokens and back, and where the tokens of an image stand.

FLUX and its relatives have channels first within a 2 x 2 patch, Z-Image and SD3 channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies, text_position_ids
from imax_dist.models.token_shards import TokenShards
from imax_dist.shapes import Latents, PositionIds, Tokens


def pack(latents: Latents) -> Tokens:
    """(B, C, 2h, 2w) -> (B, h w, 4 C), row by row."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpack(tokens: Tokens, grid: TokenGrid) -> Latents:
    """The inverse, for ``grid`` = h x w tokens."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, grid.height, grid.width, channels // 4, 2, 2)
    latents = patches.permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(batch, channels // 4, 2 * grid.height, 2 * grid.width)


def own_row(x: Latents, shares: TokenShards, *, patch: int) -> Latents:
    """(B, C, H, W) -> (B, C, patch, own tokens x patch): this rank's patches side by side."""
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    patches = cut.permute(0, 1, 3, 2, 4, 5).reshape(batch, channels, patch, -1, patch)
    own: Tensor = shares.image(patches, dim=3).flatten(3)
    return own


def whole_image(row: Latents, grid: TokenGrid, shares: TokenShards, *, patch: int) -> Latents:
    """The inverse over all ranks: every rank's row -> (B, C, H, W), the same bits on every rank."""
    patches = shares.gather(row.unflatten(3, (-1, patch)), dim=3)
    batch, channels = row.shape[:2]
    cut = patches.reshape(batch, channels, patch, grid.height, grid.width, patch)
    whole: Tensor = cut.permute(0, 1, 3, 2, 4, 5).reshape(
        batch, channels, grid.height * patch, grid.width * patch
    )
    return whole


def image_position_ids(grid: TokenGrid) -> PositionIds:
    """(0, row, column) of every image token, row by row."""
    rows = torch.arange(grid.height, dtype=torch.float64).repeat_interleave(grid.width)
    columns = torch.arange(grid.width, dtype=torch.float64).repeat(grid.height)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=1)


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, then the image, as FLUX.1 orders its joint sequence."""
    return torch.cat([text_position_ids(text_tokens, copies), image_position_ids(grid)])


def pack_channels_last(latents: Latents) -> Tokens:
    """(B, C, 2h, 2w) -> (B, h w, 4 C), row by row."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, height * width // 4, channels * 4)


def unpack_channels_last(tokens: Tokens, grid: TokenGrid) -> Latents:
    """The inverse, for ``grid`` = h x w tokens."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, grid.height, grid.width, 2, 2, channels // 4)
    latents = patches.permute(0, 5, 1, 3, 2, 4)
    return latents.reshape(batch, channels // 4, 2 * grid.height, 2 * grid.width)
