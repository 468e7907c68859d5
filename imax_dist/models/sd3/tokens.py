"""How a rank's tokens go through a transformer that takes latents: embedded before, as one row of patches.

SD3Transformer2DModel embeds patches and adds their positions itself, then cuts the image back into patches by
the shape of its input. The adapter embeds the whole latent, so that every token has its place, and hands the
own tokens over in the shape of a row of patches; ``TokensAsRow`` in the place of the embedding unfolds them.
"""

from __future__ import annotations

from torch import Tensor, nn

from imax_dist.geometry import TokenGrid
from imax_dist.models.z_image.packing import unpack
from imax_dist.shapes import Latents, Tokens


class TokensAsRow(nn.Module):
    """Stands in for PatchEmbed: (B, D / 4, 2, 2 T) -> (B, T, D), the inverse of ``as_row``."""

    def forward(self, row: Tensor) -> Tokens:
        tokens: Tensor = row.unflatten(3, (-1, 2)).permute(0, 3, 1, 2, 4).flatten(2)
        return tokens


def as_row(tokens: Tokens) -> Latents:
    """(B, T, D) -> (B, D / 4, 2, 2 T): a row of 2 x 2 patches, each one token."""
    row: Tensor = tokens.unflatten(2, (-1, 2, 2)).permute(0, 2, 3, 1, 4).flatten(3)
    return row


def patches_of(row: Latents) -> Tokens:
    """(B, C, 2, 2 T) as the transformer returns it -> (B, T, 4 C), channels last within a patch."""
    patches: Tensor = row.unflatten(3, (-1, 2)).permute(0, 3, 2, 4, 1).flatten(2)
    return patches


def image_of(patches: Tokens, grid: TokenGrid) -> Latents:
    """All patches -> (B, C, H, W)."""
    return unpack(patches, grid)
