"""Patch shift: move the patch grid by half a patch at every other step. The authors' code.

Latents and reference get one zero latent pixel on each side for that step, so that the 2 x 2 patches
fall between those of the step before, and are cropped again right after it. Always cropped: the
authors' version leaves an odd number of steps in the padded state (DECISIONS 6).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812

from imax_dist.geometry import LatentGrid
from imax_dist.shapes import Latents


def is_shifted(index: int) -> bool:
    """The first step (index 0) and every second one after it run on the shifted grid."""
    return index % 2 == 0


def shift_in(x: Latents) -> Latents:
    """Pad one zero latent pixel on each side: (B, C, H, W) -> (B, C, H + 2, W + 2)."""
    return F.pad(x, (1, 1, 1, 1))


def shift_out(x: Latents) -> Latents:
    """Crop what ``shift_in`` added."""
    return x[:, :, 1:-1, 1:-1].contiguous()


def shifted_grid(grid: LatentGrid) -> LatentGrid:
    """The grid of a shifted step."""
    return LatentGrid(height=grid.height + 2, width=grid.width + 2)
