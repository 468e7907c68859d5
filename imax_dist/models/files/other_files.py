"""What a file is that is not a transformer: an autoencoder, a text encoder or a LoRA, by its tensors.

Such files lie beside transformers and are easily given in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch

from imax_dist.models.files.encoder_files import MARKS
from imax_dist.models.files.stored import Stored
from imax_dist.wording import plural

OTHERWISE = "v1"
"""What diffusers calls a file whose names it does not know."""
ADAPTER = ("lora_", ".lora.", "lokr_", "hada_")
"""Pieces of the names in a LoRA or another adapter file."""
AUTOENCODER = ("decoder.conv_in.", "decoder.conv1.", "decoder.up")
"""How names of an autoencoder begin; those of a whole T5 go on with ``decoder.block``."""
ENCODERS = {tensor for mark in MARKS.values() for tensor in mark.tensors}


class Kind(NamedTuple):
    """What a file may be, and where it belongs."""

    what: str
    is_mark: Callable[[str], bool]
    """Whether a tensor of this name is of such a file."""
    option: str
    folder: str
    """ComfyUI's, below its ``models``."""


KINDS = (
    Kind("a LoRA", lambda name: any(piece in name for piece in ADAPTER), "--lora", "loras"),
    Kind("an autoencoder", lambda name: name.startswith(AUTOENCODER), "--vae", "vae"),
    Kind("a text encoder", lambda name: name in ENCODERS, "--encoder", "text_encoders"),
)
"""A LoRA first: its names are those of layers of the other two as well."""


def what_else(tensors: Mapping[str, Stored], supported: Iterable[str]) -> str:
    """A sentence's end for a file that holds no transformer we know: what it is, and where it is used."""
    for kind in KINDS:
        mark = next((name for name in tensors if kind.is_mark(name)), None)
        if mark is not None:
            return (
                f"is {kind.what} by its tensor {mark}, not a transformer: give it as {kind.option} beside a "
                f"--model; ComfyUI keeps such files in models/{kind.folder}"
            )
    return (
        f"is a single file ({_as_diffusers_says(tensors)}), which is not one of the supported networks: "
        f"{', '.join(supported)}"
    )


def _as_diffusers_says(tensors: Mapping[str, Stored]) -> str:
    """``780 tensors, xl_base by their names``."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kind = infer_diffusers_model_type(
        {name: torch.empty(x.shape, device="meta") for name, x in tensors.items()}
    )
    known = f"{kind} by their names" if kind != OTHERWISE else "of no network that diffusers knows"
    return f"{plural(len(tensors), 'tensor')}, {known}"
