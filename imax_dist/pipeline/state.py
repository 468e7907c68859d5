"""Where a pass stands: all that the rest of it needs, and all that a checkpoint of it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from imax_dist.shapes import Latents, Pixels


@dataclass(frozen=True)
class PassState:
    """After ``step`` steps of the pass ``number`` (0 is the native one); the same on every rank."""

    number: int
    step: int
    latents: Latents
    reference: Latents | None = None
    """What guides the pass, at its size: (N, C, H, W), one for each of its ``reference_sigmas``."""
    pictures: Pixels | None = None
    """Finished pictures, (N, 3, h, w) in [-1, 1]: before a pass, what its reference is still to be made of;
    after one, what it made, where that needs no decoding any more."""
    endpoints: tuple[Latents, ...] = ()
    """The endpoint of each step so far, where the next pass is guided by them."""
    cached: Latents | None = None
    """The network's last velocity, where some steps are answered by it."""
    carried: Latents | None = None
    """What HiFlow's acceleration carries from step to step."""
    momentum: Latents | None = None
    """Of the guidance after the last step, where the model guides with one."""

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors there are, under their names."""
        tensors = {
            "latents": self.latents,
            "reference": self.reference,
            "pictures": self.pictures,
            "endpoints": torch.cat(self.endpoints) if self.endpoints else None,
            "cached": self.cached,
            "carried": self.carried,
            "momentum": self.momentum,
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, number: int, step: int, tensors: Mapping[str, Tensor]) -> PassState:
        """The inverse of ``to_tensors``. Raises TypeError for a name that no state has."""
        named = dict(tensors)
        endpoints = named.pop("endpoints", None)
        split = () if endpoints is None else tuple(endpoints.split(1))
        return cls(number, step, endpoints=split, **named)

    def on_grid(self, change: Callable[[Tensor], Tensor]) -> PassState:
        """With every latent that a step computes with changed alike; endpoints and pictures stay."""
        names = ("latents", "reference", "cached", "carried", "momentum")
        held = {name: getattr(self, name) for name in names}
        changed: dict[str, Any] = {name: change(x) for name, x in held.items() if x is not None}
        return replace(self, **changed)

    def to(self, device: torch.device) -> PassState:
        """The same with its tensors on ``device``."""
        moved = {name: tensor.to(device) for name, tensor in self.to_tensors().items()}
        return PassState.from_tensors(self.number, self.step, moved)
