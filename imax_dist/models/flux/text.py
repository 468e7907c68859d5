"""A prompt for FLUX: T5 states for every token, one pooled CLIP vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.weights import whole


class TextEncoders(NamedTuple):
    """transformers' own tokenizers and encoders."""

    clip_tokenizer: Any
    clip: Any
    t5_tokenizer: Any
    t5: Any


def load_text_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load both encoders from a FLUX pipeline folder."""
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    clip = whole(CLIPTextModel, folder / "text_encoder", dtype=dtype)
    t5 = whole(T5EncoderModel, folder / "text_encoder_2", dtype=dtype)
    return TextEncoders(
        clip_tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        clip=clip.to(device).eval(),
        t5_tokenizer=T5TokenizerFast.from_pretrained(folder / "tokenizer_2"),
        t5=t5.to(device).eval(),
    )


@torch.no_grad()
def encode_text(encoders: TextEncoders, prompt: str, *, tokens: int) -> tuple[Tensor, Tensor]:
    """T5 states (1, tokens, D) and pooled CLIP vector (1, D'); the prompt is padded or cut to ``tokens``."""
    pooled = encoders.clip(
        _ids(encoders.clip_tokenizer, prompt, encoders.clip_tokenizer.model_max_length, encoders.clip)
    ).pooler_output
    states = encoders.t5(_ids(encoders.t5_tokenizer, prompt, tokens, encoders.t5)).last_hidden_state
    return states, pooled


def _ids(tokenizer: Any, prompt: str, length: int, encoder: Any) -> Tensor:
    encoded = tokenizer(
        [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids.to(encoder.device)
    return ids
