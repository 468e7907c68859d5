"""A super-resolution network by name or file: an RRDBNet of our own, any other that spandrel loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.named_file import plain_size
from imax_dist.super_resolution.realesrgan import FILES, file_of, is_installed, shape_of, weights_of
from imax_dist.super_resolution.rrdb import RrdbNet, rrdb_net

AUTO = "auto"
BEST = "realesrgan-x4plus"
"""What ``auto`` stands for, where it is installed."""


@dataclass(frozen=True)
class EnlargingNetwork:
    """RGB pictures, (1, 3, h, w) in [0, 1], to ``scale`` times their sides, about [0, 1]."""

    name: str
    """Architecture and file, for the recipe."""
    scale: int
    module: Any
    local: RrdbNet | None = None
    """The same network where it is known how far it sees: a part of the picture gives the whole's numbers."""

    def __call__(self, pixels: Tensor) -> Tensor:
        result: Tensor = self.module(pixels)
        return result

    def to(self, device: torch.device, dtype: torch.dtype) -> EnlargingNetwork:
        """On this device, with its numbers in this precision; it is changed itself."""
        self.module.to(device, dtype)
        return self


def file_of_network(name: str) -> Path:
    """What ``name`` is read from. Raises BadValue for another word, MissingInput for what is not there."""
    if name in FILES:
        return file_of(name)
    path = Path(name)
    if path.suffix != ".safetensors":
        known = ", ".join(FILES)
        raise BadValue(
            f"network {name[:80]!r} is neither {known} nor a .safetensors file; pickled models are not read"
        )
    if plain_size(path, "super-resolution model") is None:
        raise MissingInput(f"super-resolution model {path} does not exist")
    return path


def chosen(name: str) -> str | None:
    """``name``, or what ``auto`` stands for here: None where that is not installed."""
    if name != AUTO:
        return name
    return BEST if is_installed() else None


def read_weights(name: str) -> dict[str, Tensor]:
    """The tensors of a network. Raises what ``file_of_network`` raises, BadManifest for a broken file."""
    path = file_of_network(name)
    if name in FILES:
        return weights_of(name)
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadManifest(f"{path} is not a super-resolution model that can be used: {error}") from error
    return weights


def network_of(name: str, weights: Mapping[str, Tensor]) -> EnlargingNetwork:
    """The network of ``weights``, on the CPU in their precision.

    Raises BadManifest for tensors of no network that is known, of other channels than RGB, or that does not
    enlarge; MissingInput where only spandrel might know it and is not there.
    """
    shown = Path(name).name
    ours = rrdb_net(weights)
    if ours is not None:
        found = EnlargingNetwork(f"RRDBNet {shown}", ours.scale, ours.float(), ours)
    else:
        found = _of_spandrel(name, weights)
    if found.scale < 2:
        raise BadManifest(f"{name} enlarges by {found.scale}; name a network that enlarges by 2 or more")
    return found


def shape_for_plan(name: str) -> RrdbNet:
    """A network's shape for a plan, of a file that is there; else, and of any other, that of BEST."""
    if name in FILES or not Path(name).is_file():
        return shape_of(name if name in FILES else BEST)
    return rrdb_net(read_weights(name)) or shape_of(BEST)


def _of_spandrel(name: str, weights: Mapping[str, Tensor]) -> EnlargingNetwork:
    spandrel = _library(name)
    try:
        model = spandrel.ModelLoader().load_from_state_dict(dict(weights))
    except (RuntimeError, ValueError, spandrel.UnsupportedModelError) as error:
        raise BadManifest(f"{name} is not a super-resolution model that can be used: {error}") from error
    if model.input_channels != 3 or model.output_channels != 3:
        raise BadManifest(
            f"{name} takes {model.input_channels} and gives {model.output_channels} channels; name one of RGB"
        )
    return EnlargingNetwork(f"{model.architecture.name} {Path(name).name}", int(model.scale), model.eval())


def _library(name: str) -> Any:
    try:
        import spandrel  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingInput(
            f"{name} is not an RRDBNet of RGB pictures, and other super-resolution models need spandrel; "
            "pip install spandrel"
        ) from error
    except (RuntimeError, OSError) as error:
        raise MissingInput(
            f"{name} is not an RRDBNet of RGB pictures, and spandrel cannot be loaded ({error}); install the "
            f"torchvision that belongs to torch {torch.__version__}"
        ) from error
    return spandrel
