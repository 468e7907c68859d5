"""Text encoders in a file, as ComfyUI keeps them: alone, or in a checkpoint with everything else.

Their tensors have transformers' own names, with or without a word before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import BadValue
from imax_dist.models.stored import beside, shapes

PREFIX = re.compile(r"(?:text_encoders\.\w+\.transformer\.)?")
"""Before an encoder's names: the name it has in ComfyUI's checkpoints, which is free, or nothing."""


class Mark(NamedTuple):
    """A tensor that encoders of a kind have, and the config's key of its last side."""

    tensor: str
    width: str


MARKS = {
    "CLIPTextModel": Mark("text_model.embeddings.token_embedding.weight", "hidden_size"),
    "T5EncoderModel": Mark("shared.weight", "d_model"),
    "Qwen3ForCausalLM": Mark("model.embed_tokens.weight", "hidden_size"),
    "Qwen3Model": Mark("model.embed_tokens.weight", "hidden_size"),
}
"""By the class of ``architectures``."""


class Found(NamedTuple):
    """A text encoder in a file."""

    prefix: str
    """Before the names of its tensors."""
    config: Mapping[str, Any]
    """Its config.json: beside the file, else the table's."""


def encoders_in(file: Path, table: Mapping[str, Any]) -> dict[str, Found]:
    """Every text encoder of an architecture that a file holds, by component."""
    own, shape_of = beside(file, "architectures"), shapes(file)
    made = {}
    for part, config in encoders_of(table).items():
        kind = config["architectures"][0]
        if own is not None and kind in (own.get("architectures") or []):
            config = own
        mark, width = MARKS[kind].tensor, int(config[MARKS[kind].width])
        behind = [
            name.removesuffix(mark)
            for name, shape in shape_of.items()
            if shape and shape[-1] == width and name.endswith(mark)
        ]
        prefix = next((each for each in behind if PREFIX.fullmatch(each)), None)
        if prefix is not None:
            made[part] = Found(prefix, config)
    return made


def require_encoders(file: Path, table: Mapping[str, Any]) -> dict[str, Found]:
    """The same of a file that a person names. Raises BadValue for one without any."""
    made = encoders_in(file, table)
    if not made:
        known = ", ".join(f"{part} ({x['architectures'][0]})" for part, x in encoders_of(table).items())
        raise BadValue(
            f"text encoder {file} is none of those of {table['source']} that come as a file: "
            f"{known or 'there are none'}"
        )
    return made


def encoders_of(table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The text encoders whose config.json an architecture holds, by component."""
    return {part: config for part, config in table["components"].items() if part.startswith("text_encoder")}
