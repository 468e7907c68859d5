"""A prompt for Z-Image: the second-last states of Qwen3 for the prompt as a user's message."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from imax_dist.models.reader import Reader, load_reader


def load_text_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Reader:
    """Load tokenizer and reader from a Z-Image pipeline folder."""
    from transformers import Qwen3Model

    return load_reader(Qwen3Model, folder, device=device, dtype=dtype)


@torch.no_grad()
def encode_text(encoder: Reader, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt, cut to ``tokens`` at most; padding comes later, in the transformer."""
    message = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    encoded = encoder.tokenizer([message], max_length=tokens, truncation=True, return_tensors="pt")
    ids = encoded.input_ids.to(encoder.network.device)
    states: Tensor = encoder.network(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    return states
