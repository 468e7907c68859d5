from __future__ import annotations

import numpy as np
import torch

from imax_dist.study.scenes import render, sample_scene
from imax_dist.study.train.autoencoder import build_autoencoder
from imax_dist.study.train.features import patch_distance, patch_features


def test_the_distance_is_zero_for_the_truth_and_grows_with_noise() -> None:
    torch.manual_seed(0)
    vae = build_autoencoder((8, 8, 16, 16))
    vae.register_to_config(scaling_factor=10.0, shift_factor=0.0)
    truth = [render(sample_scene(k), 128, 128) for k in range(8)]
    noise = np.random.default_rng(0).normal(0, 1, truth[0].shape)
    far = [
        patch_distance(vae, [np.clip(p + much * noise, 0, 255).astype(np.uint8) for p in truth], truth)
        for much in (0, 15, 60)
    ]
    assert abs(far[0]) < 1e-6
    assert far[2] > 2 * far[1] > 1e-3
    assert patch_features(vae, np.stack(truth)).shape == (8, 32)
