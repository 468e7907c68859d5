"""The velocity loss of trained weights on scenes that no run sees: a loss curve that needs no journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from imax_dist.models.patches import pack
from imax_dist.output.atomic import write_bytes
from imax_dist.study.experiments.figure import COLOURS, curve, dress, new_figure, png_of
from imax_dist.study.metrics.interval import Interval, bootstrap
from imax_dist.study.scenes import caption, render, sample_scene
from imax_dist.study.train.autoencoder import encode_mean
from imax_dist.study.train.crops import HELD_OUT, to_unit
from imax_dist.study.train.latents import size_name
from imax_dist.study.train.network import FlowNetwork, Text
from imax_dist.study.train.text import Tokenizers

LEVELS = tuple((k + 0.5) / 8 for k in range(8))
"""Noise levels sigma, 0 image and 1 noise: the middles of eight equal parts."""


@dataclass(frozen=True)
class HeldOut:
    """Scenes of one size: clean packed latents (N, tokens, 64), their captions, and the grid of tokens."""

    tokens: torch.Tensor
    text: Text
    grid: tuple[int, int]


@torch.no_grad()
def held_out_scenes(
    vae: AutoencoderKL, tokenizers: Tokenizers, count: int, *, size: tuple[int, int]
) -> HeldOut:
    """The first ``count`` held-out scenes at ``size`` (height, width), encoded as the flow's data are."""
    scenes = [sample_scene(HELD_OUT + k) for k in range(count)]
    images = (to_unit(np.stack([render(scene, *size)])) for scene in scenes)
    means = torch.cat([encode_mean(vae, image) for image in images])
    latents = (means - vae.config.shift_factor) * vae.config.scaling_factor
    text = Text(*tokenizers.ids([caption(scene) for scene in scenes]))
    return HeldOut(pack(latents), text, (latents.shape[2] // 2, latents.shape[3] // 2))


@torch.no_grad()
def held_out_loss(network: FlowNetwork, scenes: HeldOut) -> Interval:
    """Mean squared error of the captioned velocity over LEVELS, with its interval over the scenes.

    A scene's noise is its own at every level and the same for every network. One pass, no guidance: a network
    that takes a guidance scale is given 1.
    """
    losses = []
    for row, clean in enumerate(scenes.tokens):
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(HELD_OUT + row))
        sigma = torch.tensor(LEVELS)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        text = Text(*(ids[row].expand(len(LEVELS), -1) for ids in (scenes.text.clip, scenes.text.t5)))
        guidance = torch.ones(len(LEVELS)) if network.shape.guidance else None
        velocity = network(noisy, sigma, text, grid=scenes.grid, guidance=guidance)
        losses.append(float((velocity - (noise - clean)).square().mean()))
    return bootstrap(losses)


def draw_losses(path: Path, at: Sequence[float], found: Mapping[tuple[int, int], Sequence[Interval]]) -> None:
    """Write a PNG: the loss of each size over ``at``. Raises MissingInput without matplotlib."""
    figure, axes = new_figure(1, 1, height=2.8)
    for colour, (size, losses) in zip(COLOURS, found.items(), strict=False):
        points = [
            (x, {"mean": loss.mean, "low": loss.low, "high": loss.high})
            for x, loss in zip(at, losses, strict=True)
        ]
        curve(axes[0][0], points, colour, f"{size_name(size)}, n = {losses[0].n}")
    dress(axes[0][0], "held-out velocity loss")
    axes[0][0].set_ylim(bottom=0)
    axes[0][0].set_xlabel("thousand samples", fontsize=8)
    axes[0][0].legend(fontsize=7)
    write_bytes(path, png_of(figure, dpi=110))
