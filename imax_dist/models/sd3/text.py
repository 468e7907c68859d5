"""A prompt for Stable Diffusion 3: both CLIPs' states side by side, then T5's; two pooled vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.models.weights import whole


class TextEncoders(NamedTuple):
    """transformers' own tokenizers and encoders; CLIP-L, then CLIP-G."""

    clip_tokenizers: tuple[Any, Any]
    clips: tuple[Any, Any]
    t5_tokenizer: Any
    t5: Any


def load_text_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load all three encoders from a Stable Diffusion 3 pipeline folder."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    clips = [
        whole(CLIPTextModelWithProjection, folder / name, dtype=dtype).to(device).eval()
        for name in ("text_encoder", "text_encoder_2")
    ]
    tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
    return TextEncoders(
        clip_tokenizers=(tokenizers[0], tokenizers[1]),
        clips=(clips[0], clips[1]),
        t5_tokenizer=T5TokenizerFast.from_pretrained(folder / "tokenizer_3"),
        t5=whole(T5EncoderModel, folder / "text_encoder_3", dtype=dtype).to(device).eval(),
    )


@torch.no_grad()
def encode_text(encoders: TextEncoders, prompt: str, *, tokens: int) -> tuple[Tensor, Tensor]:
    """States (1, CLIP's tokens + ``tokens``, D) and pooled vector (1, D'); both texts padded or cut."""
    length = encoders.clip_tokenizers[0].model_max_length
    read = [
        clip(_ids(tokenizer, prompt, length, clip), output_hidden_states=True)
        for tokenizer, clip in zip(encoders.clip_tokenizers, encoders.clips, strict=True)
    ]
    t5_states = encoders.t5(_ids(encoders.t5_tokenizer, prompt, tokens, encoders.t5)).last_hidden_state
    clip_states = torch.cat([one.hidden_states[-2] for one in read], dim=-1)
    widened = F.pad(clip_states, (0, t5_states.shape[-1] - clip_states.shape[-1]))
    pooled = torch.cat([one.text_embeds for one in read], dim=-1)
    return torch.cat([widened, t5_states], dim=1), pooled


def _ids(tokenizer: Any, prompt: str, length: int, encoder: Any) -> Tensor:
    encoded = tokenizer(
        [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids.to(encoder.device)
    return ids
