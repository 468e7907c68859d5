"""The fixed feature space of the Frechet distance: what the testbed's own encoder, trained on scenes,
says about a patch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

from imax_dist.study.metrics.frechet import cut_patches, frechet_distance
from imax_dist.study.train.autoencoder import encode_mean
from imax_dist.study.train.crops import to_unit

Pixels = npt.NDArray[np.uint8]


@torch.no_grad()
def patch_features(vae: AutoencoderKL, patches: Pixels) -> npt.NDArray[np.float64]:
    """Mean and deviation of each scaled latent channel over a patch: (N, h, w, 3) to (N, 32)."""
    parts = []
    for images in to_unit(patches).split(64):
        latents = (encode_mean(vae, images) - vae.config.shift_factor) * vae.config.scaling_factor
        parts.append(torch.cat([latents.mean((2, 3)), latents.std((2, 3))], 1))
    features: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()
    return features


def patch_distance(
    vae: AutoencoderKL, pictures: list[Pixels], truth: list[Pixels], *, patch: int = 32
) -> float:
    """Frechet distance of patch features between pictures and true renders of the same sizes, as they
    are: nothing is downsized. 16 patches a picture, at the same places in both sets."""
    ours, theirs = (
        np.concatenate([cut_patches(picture, size=patch, seed=k) for k, picture in enumerate(group)])
        for group in (pictures, truth)
    )
    return frechet_distance(patch_features(vae, ours), patch_features(vae, theirs))
