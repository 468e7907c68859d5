"""The model card's numbers: caption facts of drawn pictures, and what the autoencoder keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, FluxPipeline

from imax_dist.study.metrics.interval import Interval, bootstrap
from imax_dist.study.scenes import Scene, caption, parse, render, sample_scene
from imax_dist.study.scenes.parse import FACTS, matches
from imax_dist.study.train.autoencoder import decode, encode_mean, round_trip_psnr, scale_error
from imax_dist.study.train.crops import HELD_OUT, to_bytes, to_unit
from imax_dist.study.train.sample import draw

Pixels = npt.NDArray[np.uint8]


def measure_pipeline(
    pipeline: FluxPipeline, count: int, *, size: tuple[int, int], steps: int, guidance: float
) -> tuple[dict[str, Any], list[Pixels]]:
    """Results as plain JSON values, and the pictures, for ``count`` held-out scenes.

    ``truth`` and ``autoencoder`` are the ceilings: the true renders, and these through the VAE.
    """
    scenes = [sample_scene(HELD_OUT + k) for k in range(count)]
    truth = np.stack([render(scene, *size) for scene in scenes])
    captions = [caption(scene) for scene in scenes]
    pictures = draw(pipeline, captions, size=size, steps=steps, guidance=guidance)
    rebuilt, quality = measure_autoencoder(pipeline.vae, truth)
    groups = {"drawn": list(pictures), "truth": list(truth), "autoencoder": list(rebuilt)}
    facts = {
        name: {field: asdict(value) for field, value in facts_recovered(group, scenes).items()}
        for name, group in groups.items()
    }
    how = {"n": count, "size": list(size), "steps": steps, "guidance": guidance}
    return {"how": how, "facts": facts, "vae": quality, "captions": captions}, list(pictures)


@torch.no_grad()
def measure_autoencoder(vae: AutoencoderKL, truth: Pixels) -> tuple[Pixels, dict[str, Any]]:
    """Rebuilt pictures, and PSNR in dB and scale error of the autoencoder on true renders."""
    images = to_unit(truth)
    rebuilt = torch.cat([decode(vae, encode_mean(vae, part)) for part in images.split(8)])
    quality = {
        "psnr": asdict(bootstrap(round_trip_psnr(vae, images).tolist())),
        "scale_error": scale_error(vae, images[:16]),
    }
    return to_bytes(rebuilt), quality


def facts_recovered(pictures: Sequence[Pixels], scenes: Sequence[Scene]) -> dict[str, Interval]:
    """Share of pictures whose parse agrees with the scene, for each of FACTS, their ``mean`` and
    ``all`` of them at once. Pictures are (height, width, 3) bytes."""
    right = [matches(parse(picture), scene.facts()) for picture, scene in zip(pictures, scenes, strict=True)]
    shares = {name: [float(row[name]) for row in right] for name in FACTS}
    shares["mean"] = [float(np.mean(list(row.values()))) for row in right]
    shares["all"] = [float(all(row.values())) for row in right]
    return {name: bootstrap(values) for name, values in shares.items()}
