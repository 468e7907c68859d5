"""Distil a guided model into a few steps: piecewise rectified flow (Yan et al., arXiv 2405.07510).

The noise levels are cut into as many windows as the student shall take steps. Within a window the
student learns the straight line from a noised picture to where the teacher's own path, guided and in
several Euler steps, leaves the window. It stands in for FLUX.1-schnell: no guidance input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.study.train.budget import Budget
from imax_dist.study.train.distil import velocity_at
from imax_dist.study.train.flow import (
    Batch,
    FlowRun,
    FlowSettings,
    attention_for,
    start,
    train,
    update,
)
from imax_dist.study.train.latents import Buckets
from imax_dist.study.train.network import FlowNetwork, Text
from imax_dist.study.train.precision import mixed_precision
from imax_dist.study.train.text import Tokenizers


@dataclass(frozen=True)
class Windows:
    """``steps`` windows of the noise levels at time shift ``shift``; the teacher takes ``inner`` steps in
    each, at guidance ``scale``. Half of the samples stand at their window's start, where a sampler calls."""

    steps: int = 4
    shift: float = 1.6
    inner: int = 5
    scale: float = 2.5

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """First and last noise level of a random window, and one within it, each (count,)."""
        edges = torch.tensor(shifted_sigmas(self.steps, self.shift))
        window = torch.randint(self.steps, (count,), generator=generator)
        share = torch.rand(count, generator=generator)
        inside = torch.where(torch.rand(count, generator=generator) < 0.5, torch.zeros(count), share)
        first, last = edges[window], edges[window + 1]
        return first, last, torch.lerp(first, last, inside)


def distil_steps(
    folder: Path, buckets: Buckets, tokenizers: Tokenizers, *, teacher: FlowNetwork,
    settings: FlowSettings, budget: Budget, windows: Windows, device: str = "cpu",
) -> FlowNetwork:  # fmt: skip
    """Train a student in ``folder`` (few-steps.safetensors, few-steps.jsonl), resumable."""
    settings = replace(settings, shape=replace(teacher.shape, guidance=False))
    run = start(settings, tokenizers, buckets, teacher=teacher, teaching=windows, device=device)
    for network in (run.network, run.average):
        network.load_state_dict(without_guidance(teacher, windows.scale))
    teacher = teacher.to(device)

    def step(batch: Batch) -> dict[str, float]:
        return {"loss": _step(run, batch, (teacher, windows), settings)}

    return train(folder / "few-steps.safetensors", run, buckets, step=step, settings=settings, budget=budget)


def without_guidance(teacher: FlowNetwork, scale: float) -> dict[str, torch.Tensor]:
    """The teacher's weights with its guidance input fixed at ``scale``: the embedding of a constant is a
    constant, and goes into a bias. Exact."""
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    if not teacher.shape.guidance:
        return state
    embed = teacher.transformer.time_text_embed
    constant = embed.guidance_embedder(embed.time_proj(torch.tensor([1000.0 * scale])))
    bias = "transformer.time_text_embed.timestep_embedder.linear_2.bias"
    state[bias] = state[bias] + constant[0].detach()
    return {name: value for name, value in state.items() if "guidance_embedder" not in name}


def _step(run: FlowRun, batch: Batch, guide: tuple[FlowNetwork, Windows], settings: FlowSettings) -> float:
    """One update towards the straight line through a window; returns the loss."""
    teacher, windows = guide
    device = next(run.network.parameters()).device
    generator, count = batch.generator, len(batch.tokens)
    noise = torch.randn(batch.tokens.shape, generator=generator).to(device)
    first, last, sigma = (level.to(device) for level in windows.draw(count, generator))
    text = batch.text.to(device)
    begin = torch.lerp(batch.tokens.to(device), noise, first[:, None, None])
    with mixed_precision(device), attention_for(device, batch.tokens.shape[1]):
        with torch.no_grad():
            end = follow(teacher, begin, (first, last), text=text, grid=batch.grid, windows=windows)
        share = ((first - sigma) / (first - last))[:, None, None]
        velocity = run.network(torch.lerp(begin, end, share), sigma, text, grid=batch.grid).float()
    loss = mse_loss(velocity, (begin - end) / (first - last)[:, None, None])
    update(run, loss, settings.ema)
    return float(loss.detach())


def follow(
    network: FlowNetwork, tokens: torch.Tensor, levels: tuple[torch.Tensor, torch.Tensor], *, text: Text,
    grid: tuple[int, int], windows: Windows,
) -> torch.Tensor:  # fmt: skip
    """The network's path from noise levels ``levels[0]`` (B,) to ``levels[1]``, in equal Euler steps."""
    first, last = levels
    size = (last - first) / windows.inner
    scale = torch.full_like(first, windows.scale)
    for k in range(windows.inner):
        velocity = velocity_at(network, tokens, first + k * size, text=text, grid=grid, scale=scale)
        tokens = tokens + size[:, None, None] * velocity
    return tokens
