"""Patch shift: move the patch grid by half a patch at every other step. The authors' code.

The network sees the latents with one zero latent pixel on each side, so that its 2 x 2 patches fall
between those of the step before. Ours crops its velocity before guidance and the Euler step. The released
code moves the whole step: the latents, the reference and with them the blocks of its low-pass; that is
``patch_shift: step``. Either way the ring is cropped after the step, so that any number of steps returns the
right size (DECISIONS 6).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812

from imax_dist.geometry import LatentGrid
from imax_dist.shapes import Latents, OtherLatents


def is_shifted(index: int) -> bool:
    """The first step (index 0) and every second one after it run on the shifted grid."""
    return index % 2 == 0


def shift_in(x: Latents) -> OtherLatents:
    """Pad one zero latent pixel on each side: (B, C, H, W) -> (B, C, H + 2, W + 2)."""
    return F.pad(x, (1, 1, 1, 1))


def shift_out(x: Latents) -> OtherLatents:
    """Crop what ``shift_in`` added."""
    return x[:, :, 1:-1, 1:-1].contiguous()


def shifted_grid(grid: LatentGrid) -> LatentGrid:
    """The grid of a shifted step."""
    return LatentGrid(height=grid.height + 2, width=grid.width + 2)
