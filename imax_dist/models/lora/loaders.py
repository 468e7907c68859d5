"""Who loads a LoRA into a network: diffusers' pipeline class, with the transformer alone in it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from imax_dist.errors import BadConfig
from imax_dist.models.spec import ModelSpec
from imax_dist.models.weights import component_config, pipeline_index


def loader_of(spec: ModelSpec, folder: Path) -> Any:
    """The model's pipeline class, or what stands in for it. Raises BadConfig without a loader or peft."""
    import diffusers
    from diffusers.utils import is_peft_available

    name = str(pipeline_index(folder)["_class_name"])
    kind = getattr(diffusers, name)
    if not hasattr(kind, "load_lora_weights"):
        network = getattr(
            diffusers, str(component_config(folder, "transformer", weights=False)["_class_name"])
        )
        if not hasattr(network, "load_lora_adapter"):
            raise BadConfig(f"lora: diffusers has no LoRA loader for a {name}, model {spec.name}")
        kind = NetworkAlone
    if not is_peft_available():
        raise BadConfig("lora needs the package peft; install it with pip install 'imax-dist[lora]'")
    return kind


class NetworkAlone:
    """Stands in for a pipeline without a LoRA loader whose network takes adapters (HunyuanImage)."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    @staticmethod
    def lora_state_dict(tensors: dict[str, Any]) -> dict[str, Any]:
        raise ValueError(
            f"diffusers has no LoRA names for this network: {next(iter(tensors))} is not its name"
        )

    def load_lora_weights(self, tensors: dict[str, Any], *, adapter_name: str) -> None:
        self.transformer.load_lora_adapter(tensors, prefix="transformer", adapter_name=adapter_name)

    def set_adapters(self, names: list[str], weights: list[float]) -> None:
        self.transformer.set_adapters(names, weights)

    def fuse_lora(self, *, adapter_names: list[str]) -> None:
        self.transformer.fuse_lora(adapter_names=adapter_names)

    def unload_lora_weights(self) -> None:
        self.transformer.unload_lora()


def bare(transformer: Any, kind: Any) -> Any:
    """The pipeline with the transformer alone: its LoRA loader needs no more."""
    from diffusers import ModularPipeline

    if issubclass(kind, ModularPipeline):
        pipeline = kind()
        pipeline.update_components(transformer=transformer)
        return pipeline
    needed = [each.name for each in inspect.signature(kind).parameters.values() if each.default is each.empty]
    parts = {**dict.fromkeys(needed), "transformer": transformer}
    try:
        return kind(**parts)
    except AttributeError:  # QwenImage21Pipeline asks its processor something as it is made
        pipeline = kind.__new__(kind)
        pipeline.register_modules(**parts)
        return pipeline
