"""A prompt for the Lumina models: the last but one hidden states of Gemma, cut to the prompt's own length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imax_dist.models.reader import Reader, load_reader


def load_gemma(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Reader:
    """Load Gemma or Gemma 2 from a pipeline folder."""
    from transformers import AutoModel

    return load_reader(AutoModel, folder, device=device, dtype=dtype)


@torch.no_grad()
def encode_caption(gemma: Reader, caption: str, *, tokens: int, **padding: Any) -> Tensor:
    """(1, own tokens, D): padding is encoded as the model's pipeline does and then cut away.

    No masks are needed after that, and no engine has to know one.
    """
    encoded = gemma.tokenizer([caption], max_length=tokens, truncation=True, return_tensors="pt", **padding)
    mask = encoded.attention_mask.to(gemma.network.device)
    ids = encoded.input_ids.to(gemma.network.device)
    states: Tensor = gemma.network(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return states[:, mask[0].bool()]
