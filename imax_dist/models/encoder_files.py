"""Text encoders in one file, as ComfyUI keeps them: which of a pipeline's it is, and its weights loaded.

Their tensors have transformers' own names, with or without a word before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import BadValue
from imax_dist.models.stored import beside, shapes

PREFIXES = ("text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer.", "")


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


def encoder_of(file: Path, table: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Which text encoder of an architecture a file is: its component, prefix and config.json.

    Raises BadValue for a file that is none of them.
    """
    own = beside(file, "architectures")
    found = shapes(file)
    for part, config in encoders_of(table).items():
        kind = config["architectures"][0]
        if own is not None and own["architectures"][0] == kind:
            config = own
        mark = MARKS[kind]
        for prefix in PREFIXES:
            width = found.get(prefix + mark.tensor, ())
            if width and width[-1] == int(config[mark.width]):
                return part, prefix, config
    known = ", ".join(f"{part} ({config['architectures'][0]})" for part, config in encoders_of(table).items())
    raise BadValue(
        f"text encoder {file} is none of those of {table['source']} that come as a file: "
        f"{known or 'there are none'}"
    )


def encoders_of(table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The text encoders whose config.json an architecture holds, by component."""
    return {part: config for part, config in table["components"].items() if part.startswith("text_encoder")}
