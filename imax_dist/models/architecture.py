"""What one diffusers pipeline class needs: its facts, its weights, and settings for a bare folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from imax_dist.models.base import FlowModel
from imax_dist.models.spec import ModelSettings, ModelSpec


class Load(Protocol):
    """Load the weights (safetensors, memory-mapped). What the libraries raise becomes MissingInput.

    ``encoder_device`` is that of the text encoders; None leaves them out.
    """

    def __call__(
        self,
        spec: ModelSpec,
        folder: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        encoder_device: torch.device | None,
    ) -> FlowModel: ...


class Architecture(NamedTuple):
    """An entry of ``models/registry.py``."""

    describe: Callable[[str, ModelSettings, Path], ModelSpec]
    """Facts from the config files; a KeyError, TypeError or ValueError becomes BadConfig."""
    load: Load
    settings: Callable[[Mapping[str, Any]], str]
    """transformer/config.json -> the ``configs/models`` file for a folder that has no ``imax.yaml``."""
