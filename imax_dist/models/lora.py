"""LoRA files on a transformer: read, checked and merged into its weights before the first step.

diffusers reads the many key formats (its own, kohya, x-labs, black-forest-labs) and peft does the arithmetic;
merged weights cost a step nothing and need nothing of the engines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from imax_dist.errors import BadConfig, BadValue, MissingInput
from imax_dist.models.spec import Lora, ModelSpec
from imax_dist.wording import first_line


def parse_lora(text: str) -> tuple[str, float]:
    """``PATH[:WEIGHT]``. Raises BadValue for an empty path or a weight that is no number."""
    source, colon, weight = text.rpartition(":")
    if not colon or "/" in weight or "\\" in weight:
        source, weight = text, "1"
    try:
        number = float(weight)
    except ValueError as error:
        raise BadValue(f"lora {text!r} is not PATH[:WEIGHT]: {weight!r} is not a number") from error
    if not source.strip() or number != number or abs(number) == float("inf"):
        raise BadValue(f"lora {text!r} is not PATH[:WEIGHT]; write for example style.safetensors:0.8")
    return source, number


def find_loras(asked: Sequence[str]) -> tuple[Lora, ...]:
    """Every file with its hash. Raises MissingInput for one that is not there, BadValue for no LoRA."""
    return tuple(_find(*parse_lora(text)) for text in asked)


def _find(source: str, weight: float) -> Lora:
    file = Path(source)
    if file.is_dir():
        inside = sorted(file.glob("*.safetensors"))
        if len(inside) != 1:
            raise MissingInput(f"lora {source} holds {len(inside)} .safetensors files; name one of them")
        file = inside[0]
    if not file.is_file():
        raise MissingInput(f"lora {source} does not exist; give a .safetensors file on this machine")
    try:
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
    except SafetensorError as error:
        raise BadValue(f"lora {source} is not a .safetensors file: {error}") from error
    if not any("lora" in key for key in keys):
        raise BadValue(f"lora {source} holds no LoRA: none of its {len(keys)} tensors is named after one")
    return Lora(source, file, weight, hashlib.sha256(file.read_bytes()).hexdigest())


def merge_loras(transformer: Any, spec: ModelSpec, pipeline_class: str) -> None:
    """Add every LoRA of ``spec`` to the transformer's weights; a part for the text encoders is left out.

    Quantised weights cannot be added to: there the LoRA's own layers stay and cost a little at every step.

    Raises BadConfig if peft is missing or the network takes none, BadValue if a file does not fit it.
    """
    if not spec.loras:
        return
    pipeline = _bare_pipeline(transformer, spec, pipeline_class)
    names, shapes = [f"lora_{index}" for index in range(len(spec.loras))], _shapes(transformer)
    for name, lora in zip(names, spec.loras, strict=True):
        try:
            pipeline.load_lora_weights(_tensors(lora), adapter_name=name)
        except (ValueError, KeyError, RuntimeError, AttributeError) as error:
            raise BadValue(_misfit(lora, spec, str(error))) from error
        if name not in getattr(transformer, "peft_config", {}):
            raise BadValue(_misfit(lora, spec, "none of its layers is one of the transformer's"))
        if _shapes(transformer) != shapes:  # diffusers widens a layer for some of them (FLUX.1 control)
            raise BadValue(_misfit(lora, spec, "its layers are wider than the transformer's"))
    pipeline.set_adapters(names, [lora.weight for lora in spec.loras])
    if getattr(transformer, "hf_quantizer", None) is None:
        pipeline.fuse_lora(adapter_names=names)
        pipeline.unload_lora_weights()


def _bare_pipeline(transformer: Any, spec: ModelSpec, pipeline_class: str) -> Any:
    import diffusers
    from diffusers.utils import is_peft_available

    kind = getattr(diffusers, pipeline_class)
    if not hasattr(kind, "load_lora_weights"):
        raise BadConfig(f"lora: diffusers has no LoRA loader for a {pipeline_class}, model {spec.name}")
    if not is_peft_available():
        raise BadConfig("lora needs the package peft; install it with pip install 'imax-dist[lora]'")
    signature = kind.__init__.__annotations__
    parts = {name: None for name in signature if name not in ("return", "is_distilled")}
    return kind(**{**parts, "transformer": transformer})


def _shapes(transformer: Any) -> dict[str, tuple[int, ...]]:
    """Of the network's own weights, by name."""
    own = ((name.replace(".base_layer", ""), x) for name, x in transformer.named_parameters())
    return {name: tuple(x.shape) for name, x in own if ".lora_" not in name}


def _tensors(lora: Lora) -> dict[str, Any]:
    """The transformer's part of the file."""
    from safetensors.torch import load_file

    return {key: x for key, x in load_file(lora.file).items() if not key.startswith("text_encoder")}


def _misfit(lora: Lora, spec: ModelSpec, why: str) -> str:
    first = first_line(why, otherwise="its keys or shapes differ")
    return f"lora {lora.source} does not fit model {spec.name}: {first}"
