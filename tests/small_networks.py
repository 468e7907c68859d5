"""Small super-resolution networks with random weights, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from imax_dist.super_resolution.rrdb import RrdbNet


def small_rrdb(*, seed: int = 0, **sizes: Any) -> RrdbNet:
    """Large enough weights that every layer shows in the result."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RrdbNet(**{"blocks": 1, "width": 8, "growth": 4, "doublings": 1, **sizes})
    return network.eval().requires_grad_(False)


def basicsr_names(network: RrdbNet) -> dict[str, torch.Tensor]:
    """Its tensors as Real-ESRGAN's files name them."""
    ups = {f"doublings.{n}.": f"conv_up{n + 1}." for n in range(len(network.doublings))}

    def renamed(name: str) -> str:
        for ours, theirs in ups.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        return name

    return {renamed(name): tensor.contiguous() for name, tensor in network.state_dict().items()}


def save_rrdb(path: Path, **sizes: Any) -> Path:
    """A file of a small network that enlarges by 2, or as ``sizes`` say."""
    save_file(basicsr_names(small_rrdb(**sizes)), path)
    return path
