from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imax_dist.study.metrics.frechet import cut_patches, frechet_distance, patch_features
from imax_dist.study.scenes import render, sample_scene
from imax_dist.study.train.parts import vae_of

SIDE = 192
Pixels = npt.NDArray[np.uint8]


def patch_distance(vae: Any, pictures: list[Pixels], truth: list[Pixels], *, patch: int = 32) -> float:
    """Frechet distance of patch features between pictures and true renders of the same sizes, as they
    are: nothing is downsized. 16 patches a picture, at the same places in both sets."""
    ours, theirs = (
        np.concatenate([cut_patches(picture, size=patch, seed=k) for k, picture in enumerate(group)])
        for group in (pictures, truth)
    )
    return frechet_distance(patch_features(vae, ours), patch_features(vae, theirs))


def enlarged(picture: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    lanczos = Image.Resampling.LANCZOS
    small = Image.fromarray(picture).resize((SIDE // factor, SIDE // factor), lanczos)
    return np.asarray(small.resize((SIDE, SIDE), lanczos))


def test_the_distance_sees_detail_that_lacks_is_of_noise_or_overdone_and_no_other_scene() -> None:
    """Other true scenes are near; an enlargement is far, and farther the less it knows."""
    vae = vae_of("embedded")
    truth, others = ([render(sample_scene(first + k), SIDE, SIDE) for k in range(12)] for first in (0, 50))
    rng = np.random.default_rng(0)
    halved = [enlarged(p, 2) for p in truth]
    sets = {
        "same": truth,
        "others": others,
        "halved": halved,
        "quartered": [enlarged(p, 4) for p in truth],
        "noisy": [np.clip(p + rng.normal(0, 6, p.shape), 0, 255).astype(np.uint8) for p in truth],
        "sharpened": [
            np.clip(2.0 * p - h, 0, 255).astype(np.uint8) for p, h in zip(truth, halved, strict=True)
        ],
    }
    far = {name: patch_distance(vae, pictures, truth) for name, pictures in sets.items()}
    assert abs(far["same"]) < 1e-6
    for wrong in ("halved", "noisy", "sharpened"):
        assert far[wrong] > 1.2 * far["others"], far
    assert far["quartered"] > 2 * far["halved"], far
    assert patch_features(vae, np.stack(truth)).shape == (12, 32)
