"""Pieces of every tiny pipeline: captions, random weights, the files of diffusers' layout.

The weights are large, so that attention is peaked: nearly uniform attention would hide a wrong
log-sum-exp or a token counted twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imax_dist.models.find import SETTINGS_FILE

CAPTIONS = (
    "a red sun on the left in a blue sky over the sea with two white boats",
    "a white moon in a dark sky over the snow with one black house",
    "a yellow sun on the right in an orange sky over the desert with three green trees",
    "a picture of a poster with the sea and a boat",
)
"""What the tokenizers learn: each of these words is one token, anything else is spelt in bytes."""


@torch.no_grad()
def peaked(module: nn.Module, *, seed: int, deviation: float = 1.5) -> nn.Module:
    """Matrices normal with ``deviation`` / sqrt(inputs); vectors keep the library's start values."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            scale = deviation / parameter[0].numel() ** 0.5
            parameter.normal_(0.0, scale, generator=generator)
    return module


def save_pipeline(folder: Path, kind: str, parts: dict[str, Any], *, settings: str, **options: Any) -> Path:
    """Write ``parts`` in diffusers layout, weights as bfloat16, the index of their classes, and imax.yaml."""
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": "0.42.1", **options}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            _to_bfloat16(part)
        part.save_pretrained(folder / name)
        library = type(part).__module__.split(".")[0]
        index[name] = [library, type(part).__name__]
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)  # safetensors writes for the owner only; weights are to be shared
    (folder / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
    return folder


def _to_bfloat16(module: nn.Module) -> None:
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.bfloat16)


def scheduler() -> Any:
    """diffusers' flow-matching Euler scheduler; the package makes its own noise levels."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
