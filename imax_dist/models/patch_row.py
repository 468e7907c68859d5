"""A rank's patches as one row of an image, for networks that take whole latents instead of tokens.

Its patch embedding and its last layer see single patches, and positions come from our table, so that a row
of a rank's own patches is as good an image as the whole one.
"""

from __future__ import annotations

from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.models.shares import Shares
from imax_dist.shapes import Latents


def own_row(x: Latents, shares: Shares, *, patch: int) -> Latents:
    """(B, C, H, W) -> (B, C, patch, own tokens x patch): this rank's patches side by side."""
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    patches = cut.permute(0, 1, 3, 2, 4, 5).reshape(batch, channels, patch, -1, patch)
    own: Tensor = shares.image(patches, dim=3).flatten(3)
    return own


def whole_image(row: Latents, grid: TokenGrid, shares: Shares, *, patch: int) -> Latents:
    """The inverse over all ranks: every rank's row -> (B, C, H, W), the same bits on every rank."""
    patches = shares.gather(row.unflatten(3, (-1, patch)), dim=3)
    batch, channels = row.shape[:2]
    cut = patches.reshape(batch, channels, patch, grid.height, grid.width, patch)
    whole: Tensor = cut.permute(0, 1, 3, 2, 4, 5).reshape(
        batch, channels, grid.height * patch, grid.width * patch
    )
    return whole
