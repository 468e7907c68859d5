"""Checkpoints of a training run: one safetensors file, whole or not there, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.atomic import write_file

Tensors = dict[str, torch.Tensor]


def save_checkpoint(path: Path, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Write named tensors and a few plain JSON facts (step, seconds, settings)."""
    whole = {name: value.detach().contiguous().clone() for name, value in tensors.items()}  # none shared
    header = {"facts": json.dumps(facts)}
    write_file(path, lambda temporary: save_file(whole, str(temporary), metadata=header))


def load_checkpoint(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """What ``save_checkpoint`` wrote. Raises MissingInput if there is none, BadManifest for another file."""
    facts = load_facts(path)
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118


def load_facts(path: Path) -> dict[str, Any]:
    """The facts alone. Raises as ``load_checkpoint`` does."""
    if not path.exists():
        raise MissingInput(f"{path} does not exist; name a training checkpoint, such as flow.safetensors")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
        facts: dict[str, Any] = json.loads(header["facts"])
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise BadManifest(
            f"{path} is not a training checkpoint; name another file, or remove it to start again"
        ) from error
    return facts


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """The same tensors under ``prefix.name``."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors whose name starts with ``prefix.``, without it."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The state of an optimizer as flat tensors ``index.name``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put ``optimizer_tensors`` back; the parameters must come in the same order."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
