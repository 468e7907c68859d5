"""A prompt for FLUX: T5 states for every token, one pooled CLIP vector."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.models.reader import Reader, load_reader, padded_ids


class TextEncoders(NamedTuple):
    """CLIP and T5."""

    clip: Reader
    t5: Reader


def load_text_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load both encoders from a FLUX pipeline folder."""
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    load = partial(load_reader, folder=folder, device=device, dtype=dtype)
    clip = load(CLIPTextModel, tokenizer=CLIPTokenizer)
    return TextEncoders(clip, load(T5EncoderModel, tokenizer=T5TokenizerFast, number="_2"))


@torch.no_grad()
def encode_text(encoders: TextEncoders, prompt: str, *, tokens: int) -> tuple[Tensor, Tensor]:
    """T5 states (1, tokens, D) and pooled CLIP vector (1, D'); the prompt is padded or cut to ``tokens``."""
    clip, t5 = encoders
    clip_ids = padded_ids(clip, prompt, length=clip.tokenizer.model_max_length)
    states = t5.network(padded_ids(t5, prompt, length=tokens)).last_hidden_state
    return states, clip.network(clip_ids).pooler_output
