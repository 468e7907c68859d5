"""Latents to tokens and back: FLUX's 2 x 2 patches, channels first within a patch."""

from __future__ import annotations

from imax_dist.geometry import TokenGrid
from imax_dist.shapes import Latents, Tokens


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
