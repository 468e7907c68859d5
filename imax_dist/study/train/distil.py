"""Distil classifier-free guidance into ``guidance_embeds``, FLUX.1-dev's interface.

The student learns, in one pass, the teacher's guided velocity
u_empty + g (u_text - u_empty) for g drawn from a range. Meng et al., arXiv 2210.03142, stage one.
A teacher that already takes guidance as an input teaches what it says: a copy on other data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from imax_dist.study.train.budget import Budget
from imax_dist.study.train.flow import (
    Batch,
    FlowRun,
    FlowSettings,
    attention_for,
    drop_captions,
    noise_levels,
    shift_levels,
    start,
    train,
    update,
)
from imax_dist.study.train.latents import Buckets
from imax_dist.study.train.network import FlowNetwork, Text
from imax_dist.study.train.precision import mixed_precision
from imax_dist.study.train.text import Tokenizers


@dataclass(frozen=True)
class GuidanceRange:
    """The guidance scales a student learns; 1 is no guidance."""

    low: float = 1.0
    high: float = 5.0

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count,) scales, uniform."""
        return self.low + (self.high - self.low) * torch.rand(count, generator=generator)


def distil_guidance(
    folder: Path, buckets: Buckets, tokenizers: Tokenizers, *, teacher: FlowNetwork,
    settings: FlowSettings, budget: Budget, scales: GuidanceRange | None = None, device: str = "cpu",
) -> FlowNetwork:  # fmt: skip
    """Train a student in ``folder`` (distil.safetensors, distil.jsonl), resumable; returns its average."""
    scales = scales or GuidanceRange()
    settings = replace(settings, shape=replace(teacher.shape, guidance=True))
    run = start(settings, tokenizers, buckets, teacher=teacher, teaching=scales, device=device)
    teacher = teacher.to(device)
    for network in (run.network, run.average):  # all but the guidance embedder comes from the teacher
        network.load_state_dict(teacher.state_dict(), strict=False)
    empty = Text(*tokenizers.ids([""])).to(device)

    def step(batch: Batch) -> dict[str, float]:
        return {"loss": _step(run, batch, (teacher, empty, scales), settings)}

    return train(folder / "distil.safetensors", run, buckets, step=step, settings=settings, budget=budget)


def _step(
    run: FlowRun, batch: Batch, guide: tuple[FlowNetwork, Text, GuidanceRange], settings: FlowSettings
) -> float:
    """One update towards the teacher's guided velocity; returns the loss."""
    teacher, empty, scales = guide
    device = empty.clip.device
    generator, count = batch.generator, len(batch.tokens)
    noise = torch.randn(batch.tokens.shape, generator=generator).to(device)
    sigma = shift_levels(noise_levels(count, settings, generator), batch.grid, settings).to(device)
    scale = scales.draw(count, generator).to(device)
    noisy = torch.lerp(batch.tokens.to(device), noise, sigma[:, None, None])
    dropped = torch.rand(count, generator=generator) < settings.drop_caption
    text = drop_captions(batch.text.to(device), empty, dropped.to(device))
    with mixed_precision(device), attention_for(device, batch.tokens.shape[1]):
        with torch.no_grad():
            if teacher.shape.guidance:
                target = velocity_at(teacher, noisy, sigma, text=text, grid=batch.grid, scale=scale)
            else:
                target = guided(teacher, noisy, sigma, text=text, empty=empty, grid=batch.grid, scale=scale)
        velocity = run.network(noisy, sigma, text, grid=batch.grid, guidance=scale).float()
    loss = mse_loss(velocity, target)
    update(run, loss, settings.ema)
    return float(loss.detach())


def velocity_at(
    network: FlowNetwork, noisy: torch.Tensor, sigma: torch.Tensor, *, text: Text,
    grid: tuple[int, int], scale: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """One pass in float32; ``scale`` (B,) goes to the guidance input where the network has one."""
    guidance = scale if network.shape.guidance else None
    velocity: torch.Tensor = network(noisy, sigma, text, grid=grid, guidance=guidance).float()
    return velocity


def guided(
    network: FlowNetwork, noisy: torch.Tensor, sigma: torch.Tensor, *, text: Text, empty: Text,
    grid: tuple[int, int], scale: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Classifier-free guidance in float32: u_empty + scale (u_text - u_empty); ``scale`` is (B,)."""
    nothing = Text(empty.clip.expand_as(text.clip), empty.t5.expand_as(text.t5))
    with_text: torch.Tensor = network(noisy, sigma, text, grid=grid).float()
    without: torch.Tensor = network(noisy, sigma, nothing, grid=grid).float()
    return without + scale[:, None, None] * (with_text - without)
