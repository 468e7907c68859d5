"""A prompt for Z-Image: the second-last states of Qwen3 for the prompt as a user's message."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.weights import whole


class TextEncoder(NamedTuple):
    """transformers' own tokenizer and reader."""

    tokenizer: Any
    reader: Any


def load_text_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load tokenizer and reader from a Z-Image pipeline folder."""
    from transformers import AutoTokenizer, Qwen3Model

    reader = whole(Qwen3Model, folder / "text_encoder", dtype=dtype)
    return TextEncoder(AutoTokenizer.from_pretrained(folder / "tokenizer"), reader.to(device).eval())


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt, cut to ``tokens`` at most; padding comes later, in the transformer."""
    message = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    encoded = encoder.tokenizer([message], max_length=tokens, truncation=True, return_tensors="pt")
    ids = encoded.input_ids.to(encoder.reader.device)
    states: Tensor = encoder.reader(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    return states
