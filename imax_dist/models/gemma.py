"""A prompt for the Lumina models: the last but one hidden states of Gemma, cut to the prompt's own length."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.weights import whole


class Gemma(NamedTuple):
    """transformers' own tokenizer and encoder (Gemma or Gemma 2)."""

    tokenizer: Any
    encoder: Any


def load_gemma(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Gemma:
    """Load both from a pipeline folder."""
    from transformers import AutoModel, AutoTokenizer

    encoder = whole(AutoModel, folder / "text_encoder", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return Gemma(tokenizer, encoder.to(device).eval())


@torch.no_grad()
def encode_caption(gemma: Gemma, caption: str, *, tokens: int, **padding: Any) -> Tensor:
    """(1, own tokens, D): padding is encoded as the model's pipeline does and then cut away.

    No masks are needed after that, and no engine has to know one.
    """
    encoded = gemma.tokenizer([caption], max_length=tokens, truncation=True, return_tensors="pt", **padding)
    mask = encoded.attention_mask.to(gemma.encoder.device)
    ids = encoded.input_ids.to(gemma.encoder.device)
    states: Tensor = gemma.encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return states[:, mask[0].bool()]
