"""The network that reads the prompt, with its tokenizer; what the text.py of several models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.weights import whole


class Reader(NamedTuple):
    """transformers' own tokenizer and network."""

    tokenizer: Any
    network: Any


def load_reader(
    kind: Any,
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Any = None,
    number: str = "",
) -> Reader:
    """``text_encoder`` and ``tokenizer`` of a pipeline folder, with ``number`` behind ("_2").

    ``kind`` and ``tokenizer`` are their classes.
    """
    from transformers import AutoTokenizer

    network = whole(kind, folder / f"text_encoder{number}", dtype=dtype)
    words = (tokenizer or AutoTokenizer).from_pretrained(folder / f"tokenizer{number}")
    return Reader(words, network.to(device).eval())


def padded_ids(reader: Reader, prompt: str, *, length: int) -> Tensor:
    """Ids (1, length) of the prompt on the network's device, padded or cut."""
    encoded = reader.tokenizer(
        [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids.to(reader.network.device)
    return ids
