"""A prompt for Stable Diffusion 3: both CLIPs' states side by side, then T5's; two pooled vectors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.models.reader import Reader, load_reader, padded_ids


class TextEncoders(NamedTuple):
    """CLIP-L, CLIP-G and T5."""

    clips: tuple[Reader, Reader]
    t5: Reader


def load_text_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load all three encoders from a Stable Diffusion 3 pipeline folder."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    load = partial(load_reader, folder=folder, device=device, dtype=dtype)
    load_clip = partial(load, CLIPTextModelWithProjection, tokenizer=CLIPTokenizer)
    t5 = load(T5EncoderModel, tokenizer=T5TokenizerFast, number="_3")
    return TextEncoders((load_clip(), load_clip(number="_2")), t5)


@torch.no_grad()
def encode_text(encoders: TextEncoders, prompt: str, *, tokens: int) -> tuple[Tensor, Tensor]:
    """States (1, CLIP's tokens + ``tokens``, D) and pooled vector (1, D'); both texts padded or cut."""
    clips, t5 = encoders
    length = clips[0].tokenizer.model_max_length
    read = [
        clip.network(padded_ids(clip, prompt, length=length), output_hidden_states=True) for clip in clips
    ]
    t5_states = t5.network(padded_ids(t5, prompt, length=tokens)).last_hidden_state
    clip_states = torch.cat([one.hidden_states[-2] for one in read], dim=-1)
    widened = F.pad(clip_states, (0, t5_states.shape[-1] - clip_states.shape[-1]))
    pooled = torch.cat([one.text_embeds for one in read], dim=-1)
    return torch.cat([widened, t5_states], dim=1), pooled
