"""What one diffusers pipeline class needs: its facts, its weights, and settings for a bare folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from imax_dist.models.base import FlowModel
from imax_dist.models.components import TEXT, TOKENIZER, Configs, load_components, read_configs
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.weights import SINGLE_MARK, refuse_encoder_misfit, refuse_misfit, weights_hash


class LoadText(Protocol):
    """Load text encoders and tokenizers from a pipeline folder, as the network's ``embed`` reads them."""

    def __call__(self, folder: Path, *, device: torch.device, dtype: torch.dtype) -> Any: ...


def always(settings: str) -> Callable[[Mapping[str, Any]], str]:
    """For a network whose configuration does not tell its models apart, or that has one."""

    def choose(transformer: Mapping[str, Any]) -> str:
        del transformer
        return settings

    return choose


class Architecture(NamedTuple):
    """An entry of ``models/registry.py``."""

    facts: Callable[[str, ModelSettings, Configs, str], ModelSpec]
    """Of a name, its settings, its config files and the hash of its weights.

    A KeyError, TypeError or ValueError becomes BadConfig.
    """
    model: type[FlowModel]
    networks: tuple[str, str]
    """diffusers' classes of transformer and VAE."""
    load_text: LoadText
    settings: Callable[[Mapping[str, Any]], str]
    """transformer/config.json -> the ``configs/models`` file for a folder that has no ``imax.yaml``."""
    encoders: tuple[str, ...] = TEXT
    tokenizers: tuple[str, ...] = TOKENIZER

    def describe(self, name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
        """Facts from the config files. Raises MissingInput, BadConfig or BadValue if they do not fit."""
        configs = read_configs(settings, folder, encoders=self.encoders, tokenizers=self.tokenizers)
        return self.facts(name, settings, configs, weights_hash(folder))

    def refuse_misfits(self, folder: Path) -> None:
        """Raise BadValue where a tensor has another shape than the config.json of its component says.

        Components that are links to single files were compared as the folder was made.
        """
        import diffusers

        for part, kind in zip(("transformer", "vae"), self.networks, strict=True):
            if any((folder / part).glob("*.safetensors")) and not (folder / part / SINGLE_MARK).is_file():
                refuse_misfit(getattr(diffusers, kind), folder / part)
        for part in self.encoders:
            if not (folder / part / SINGLE_MARK).is_file():
                refuse_encoder_misfit(folder / part)

    def load(
        self,
        spec: ModelSpec,
        folder: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        encoder_device: torch.device | None,
    ) -> FlowModel:
        """Load the weights (safetensors, memory-mapped). What the libraries raise becomes MissingInput.

        ``encoder_device`` is that of the text encoders; None leaves them out.
        """
        import diffusers

        kinds = getattr(diffusers, self.networks[0]), getattr(diffusers, self.networks[1])
        transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
        text = self.load_text(folder, device=encoder_device, dtype=dtype) if encoder_device else None
        return self.model(spec, transformer=transformer, vae=vae, encoders=text)
