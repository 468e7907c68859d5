"""The fixed feature space of the Frechet distance: how the testbed's own encoder, trained on scenes, answers
to the finest octave of a patch (DECISIONS 60)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

from imax_dist.study.metrics.bands import high_band

Pixels = npt.NDArray[np.uint8]
GAIN = 4.0
"""Brings the finest octave to about the contrast that the encoder was trained on."""
QUIET = 1e-3
"""Added to a deviation before its logarithm: less than this counts as nothing."""


@torch.no_grad()
def patch_features(vae: AutoencoderKL, patches: Pixels) -> npt.NDArray[np.float64]:
    """Log deviation of each channel of the encoder's first block over a patch: (N, h, w, 3) to (N, channels).

    Patches with even sides. Without the finest octave taken out first, colour drowns detail.
    """
    bands = np.stack([high_band(patch, 2) for patch in patches])
    parts = []
    for images in torch.from_numpy(bands * (GAIN / 127.5)).float().permute(0, 3, 1, 2).split(64):
        seen = vae.encoder.conv_in(images)
        for block in vae.encoder.down_blocks[0].resnets:
            seen = block(seen, temb=None)
        parts.append((seen.std((2, 3)) + QUIET).log())
    features: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()
    return features
