"""Frechet distance between two sets of features (Dowson and Landau 1982; Heusel et al. 2017), and the
features: how the testbed's own encoder, trained on scenes, answers to the finest octave of a patch
(DECISIONS 60)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imax_dist.errors import BadValue
from imax_dist.study.metrics.bands import high_band

Floats = npt.NDArray[np.float64]
GAIN = 4.0
"""Brings the finest octave to about the contrast that the encoder was trained on."""
QUIET = 1e-3
"""Added to a deviation before its logarithm: less than this counts as nothing."""


def frechet_distance(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two (count, features) arrays.

    Raises BadValue if the features differ or a set has fewer rows than features.
    """
    if ours.shape[1] != theirs.shape[1] or min(len(ours), len(theirs)) <= ours.shape[1]:
        raise BadValue(f"frechet: {ours.shape}, {theirs.shape}: give equal features and more rows than these")
    shift = ours.mean(0) - theirs.mean(0)
    one, two = (np.cov(data.astype(np.float64), rowvar=False) for data in (ours, theirs))
    root = _square_root(one)
    cross = np.linalg.eigvalsh(root @ two @ root)
    return float(shift @ shift + np.trace(one) + np.trace(two) - 2 * np.sqrt(np.maximum(cross, 0)).sum())


def _square_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def cut_patches(
    picture: npt.NDArray[Any], *, size: int = 32, count: int = 16, seed: int = 0
) -> npt.NDArray[Any]:
    """(count, size, size, C) patches at random places, the same for the same seed and picture size.

    Raises BadValue if the picture is smaller than a patch.
    """
    height, width = picture.shape[:2]
    if min(height, width) < size:
        raise BadValue(f"patches: a {width}x{height} picture is smaller than {size} px; give a smaller size")
    rng = np.random.default_rng(seed)
    tops, lefts = rng.integers(height - size + 1, size=count), rng.integers(width - size + 1, size=count)
    return np.stack([picture[i : i + size, j : j + size] for i, j in zip(tops, lefts, strict=True)])


@torch.no_grad()
def patch_features(vae: Any, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
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
