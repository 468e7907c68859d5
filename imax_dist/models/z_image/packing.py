"""Latents to tokens and back: 2 x 2 patches, channels last within a patch; padding to whole blocks."""

from __future__ import annotations

from imax_dist.geometry import TokenGrid
from imax_dist.shapes import Latents, Tokens

BLOCK = 32
"""SEQ_MULTI_OF of ZImageTransformer2DModel: text and image are padded to multiples of it."""


def padding(tokens: int) -> int:
    """How many padding tokens follow ``tokens``."""
    return -tokens % BLOCK


def pack(latents: Latents) -> Tokens:
    """(B, C, 2h, 2w) -> (B, h w, 4 C), row by row."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, height * width // 4, channels * 4)


def unpack(tokens: Tokens, grid: TokenGrid) -> Latents:
    """The inverse, for ``grid`` = h x w tokens."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, grid.height, grid.width, 2, 2, channels // 4)
    latents = patches.permute(0, 5, 1, 3, 2, 4)
    return latents.reshape(batch, channels // 4, 2 * grid.height, 2 * grid.width)
