"""A text encoder with its tokenizer: what several networks ask of one, and which memory it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.weights import component_config, load_complete


class TextEncoder(NamedTuple):
    """transformers' own tokenizer and network."""

    tokenizer: Any
    network: Any


def load_text_encoder(
    kind: Any,
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Any = None,
    number: str = "",
) -> TextEncoder:
    """``text_encoder`` and ``tokenizer`` of a pipeline folder, with ``number`` behind ("_2").

    ``kind`` and ``tokenizer`` are their classes.
    """
    from transformers import AutoTokenizer

    network = load_complete(kind, folder / f"text_encoder{number}", dtype=dtype)
    place = folder / f"tokenizer{number}"
    words = (tokenizer or AutoTokenizer).from_pretrained(place, trust_remote_code=False)
    return TextEncoder(words, network.to(device).eval())


def encoders_away(encoders: Any, device: torch.device) -> bool:
    """Whether a model's text encoders are in other memory than the ``device`` of its transformer."""
    networks = _networks(encoders)
    return any(each.device != device for network in networks for each in network.parameters())


@contextmanager
def encoders_on(encoders: Any, device: torch.device) -> Iterator[None]:
    """A model's text encoders on ``device`` within the block, in the host's memory after it.

    Their weights do not change: what has been in the host's memory once is kept there, not copied back.
    """
    networks = list(_networks(encoders))
    parameters = [each for network in networks for each in network.parameters()]
    at_home = [(each, each.data) for each in parameters if each.device.type == "cpu"]
    for network in networks:
        network.to(device)
    try:
        yield
    finally:
        for parameter, data in at_home:
            parameter.data = data
        for network in networks:
            network.to(torch.device("cpu"))


def _networks(encoders: Any) -> Iterator[Any]:
    """The networks of a model's encoders, which are TextEncoder tuples, alone or in a tuple."""
    if hasattr(encoders, "network"):
        yield encoders.network
    elif isinstance(encoders, tuple):
        for encoder in encoders:
            yield from _networks(encoder)


def padded_ids(encoder: TextEncoder, prompt: str, *, length: int) -> Tensor:
    """Ids (1, length) of the prompt on the network's device, padded or cut."""
    encoded = encoder.tokenizer(
        [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids.to(encoder.network.device)
    return ids


def load_gemma(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load Gemma or Gemma 2 from a pipeline folder."""
    from transformers import Gemma2Model, GemmaModel

    is_second = component_config(folder, "text_encoder")["model_type"] == "gemma2"
    return load_text_encoder(Gemma2Model if is_second else GemmaModel, folder, device=device, dtype=dtype)


@torch.no_grad()
def encode_caption(gemma: TextEncoder, caption: str, *, tokens: int, **padding: Any) -> Tensor:
    """(1, own tokens, D): padding is encoded as the model's pipeline does and then cut away.

    No masks are needed after that, and no engine has to know one.
    """
    encoded = gemma.tokenizer([caption], max_length=tokens, truncation=True, return_tensors="pt", **padding)
    mask = encoded.attention_mask.to(gemma.network.device)
    ids = encoded.input_ids.to(gemma.network.device)
    states: Tensor = gemma.network(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return states[:, mask[0].bool()]
