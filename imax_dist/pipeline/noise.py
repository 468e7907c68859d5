"""Noise for a whole image from its seed, on the CPU: the same on every device and number of ranks."""

from __future__ import annotations

import hashlib

import torch

from imax_dist.geometry import LatentGrid
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.shapes import Latents


def draw_noise(seed: int, purpose: str, *, grid: LatentGrid, model: FlowModel) -> Latents:
    """Standard normal latents (1, C, H, W) in float32 or better; each ``purpose`` has its own stream."""
    digest = hashlib.sha256(f"imax-dist {purpose} {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    shape = (1, model.spec.latent_channels, grid.height, grid.width)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    return noise.to(model.device, torch.promote_types(model.dtype, torch.float32))


def pass_noise(plan: PassPlan, model: FlowModel) -> Latents:
    """The noise a pass starts from; each has its own."""
    purposes = {0: "native", 1: "extrapolated"}
    purpose = purposes.get(plan.number, f"extrapolated {plan.number}")
    return draw_noise(plan.request.seed, purpose, grid=plan.grid, model=model)
