"""Text encoders in a file, as ComfyUI keeps them: alone, or in a checkpoint with everything else.

Their tensors have transformers' own names, with or without a word before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from imax_dist.errors import BadValue
from imax_dist.models.files.stored import beside, shapes

T = TypeVar("T")
PREFIX = re.compile(r"(?:text_encoders\.\w+\.transformer\.)?")
"""Before an encoder's names: the name it has in ComfyUI's checkpoints, which is free, or nothing."""


class Mark(NamedTuple):
    """Tensors of which encoders of a kind have one, and the config's key of its last side."""

    tensors: tuple[str, ...]
    width: str = "hidden_size"


WORDS = "model.embed_tokens.weight"
MARKS = {
    "clip_text_model": Mark(("text_model.embeddings.token_embedding.weight",)),
    "t5": Mark(("shared.weight",), "d_model"),
    "qwen3": Mark((WORDS,)),
    "gemma2": Mark((WORDS,)),
    "mistral": Mark((WORDS,)),
    "qwen2_5_vl": Mark((WORDS, "model.language_model.embed_tokens.weight")),
    "qwen3_vl": Mark((WORDS, "model.language_model.embed_tokens.weight")),
}
"""By ``model_type`` of a config.json."""
NESTED = {
    "qwen3_vl": (
        (r"^visual\.", "model.visual."),
        (r"^model\.(?!visual|language_model)", "model.language_model."),
    )
}
"""Older names of an encoder with an eye, which transformers does not read of this kind."""
NOT_READ = re.compile(r"(spiece_model|tekken_model)$|(vision_tower|multi_modal_projector)\.")
"""A tokenizer that ComfyUI keeps as a tensor, and the eye of FLUX.2-dev's reader."""
BLIND = ("gemma2", "mistral")
HEAD = "lm_head.weight"
"""Over words, which nothing here reads: a file need not have it."""
LAST_NORM = "norm.weight"
WHOLE_LAYERS = "imax_whole_layers"
"""Our key in the config.json of a reader that ends behind the last layer that is read."""
CUT = {"mistral": 3 / 4}
"""How much of its layers ComfyUI's file of FLUX.2-dev's reader has; no norm follows them."""


class Found(NamedTuple):
    """A text encoder in a file."""

    prefix: str
    """Before the names of its tensors."""
    config: Mapping[str, Any]
    """Its config.json: beside the file, else the table's."""


def encoders_in(file: Path, table: Mapping[str, Any]) -> dict[str, Found]:
    """Every text encoder of an architecture that a file holds, by component."""
    own, shape_of = beside(file, "model_type"), shapes(file)
    encoders, made = encoders_of(table), {}
    for part, published in encoders.items():
        alike = [each for each in encoders.values() if each["model_type"] == published["model_type"]]
        is_own = own is not None and own["model_type"] == published["model_type"] and len(alike) == 1
        config = own if is_own and own is not None else published
        prefix = _prefix(shape_of, config)
        if prefix is not None:
            made[part] = Found(prefix, _as_long_as(config, shape_of, prefix))
    return made


def _prefix(shape_of: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> str | None:
    """Before the names of an encoder's tensors, None where the file has none of this kind and width."""
    mark = MARKS[config["model_type"]]
    width = int({**config, **config.get("text_config", {})}[mark.width])
    behind = [
        name.removesuffix(tensor)
        for tensor in mark.tensors
        for name, shape in shape_of.items()
        if shape and shape[-1] == width and name.endswith(tensor)
    ]
    return next((each for each in behind if PREFIX.fullmatch(each)), None)


def _as_long_as(
    config: Mapping[str, Any], shape_of: Mapping[str, tuple[int, ...]], prefix: str
) -> Mapping[str, Any]:
    """The config of an encoder whose file may end early."""
    share, whole = CUT.get(config["model_type"], 1.0), config.get("num_hidden_layers", 0)
    found = (re.match(rf"{re.escape(prefix)}model\.layers\.(\d+)\.", name) for name in shape_of)
    there = 1 + max((int(each[1]) for each in found if each), default=-1)
    if share == 1.0 or there != share * whole:
        return config
    return {**config, "num_hidden_layers": there, WHOLE_LAYERS: whole}


def network_names(tensors: Mapping[str, T], config: Mapping[str, Any]) -> dict[str, T]:
    """An encoder's tensors in names that transformers reads."""
    made = {}
    for name, x in tensors.items():
        if config.get("model_type") in BLIND and NOT_READ.match(name):
            continue
        for pattern, new in NESTED.get(str(config.get("model_type")), ()):
            name = re.sub(pattern, new, name)
        made[name] = x
    return made


def unread(config: Mapping[str, Any]) -> set[str]:
    """Tensors of the network without which it reads a prompt all the same."""
    return {HEAD, LAST_NORM} if WHOLE_LAYERS in config else {HEAD}


def require_encoders(file: Path, table: Mapping[str, Any]) -> dict[str, Found]:
    """The same of a file that a person names. Raises BadValue for one without any."""
    made = encoders_in(file, table)
    if not made:
        known = ", ".join(f"{part} ({x['architectures'][0]})" for part, x in encoders_of(table).items())
        raise BadValue(
            f"text encoder {file} is not one of {table['source']}'s text encoders that come as a file: "
            f"{known or 'there are none'}"
        )
    return made


def encoders_of(table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The text encoders whose config.json an architecture holds, by component."""
    return {part: config for part, config in table["components"].items() if part.startswith("text_encoder")}
