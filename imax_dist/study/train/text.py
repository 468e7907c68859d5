"""Tokenizers and text encoders of our own: a CLIP and a T5 small enough for a closed vocabulary."""

from __future__ import annotations

import string
from dataclasses import dataclass

import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from imax_dist.models.closed_vocabulary import clip_tokenizer, t5_tokenizer
from imax_dist.study.scenes.caption import vocabulary

TEXT_TOKENS = 24
WIDTH = 128
_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class Tokenizers:
    """The pair a FluxPipeline holds."""

    clip: CLIPTokenizer
    t5: T5TokenizerFast

    def ids(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """CLIP and T5 token ids, both (captions, 24), padded as FluxPipeline pads them."""
        how = {"padding": "max_length", "max_length": TEXT_TOKENS, "truncation": True}
        clip, t5 = (t(captions, return_tensors="pt", **how).input_ids for t in (self.clip, self.t5))
        return clip, t5


def build_tokenizers() -> Tokenizers:
    """Both tokenizers keep a word of the vocabulary whole and spell any other in letters."""
    words = vocabulary()
    return Tokenizers(
        clip_tokenizer(words, _LETTERS, tokens=TEXT_TOKENS), t5_tokenizer(words, _LETTERS, tokens=TEXT_TOKENS)
    )


def build_encoders(tokenizers: Tokenizers) -> tuple[CLIPTextModel, T5EncoderModel]:
    """Fresh encoders of two layers and width 128 each."""
    clip = CLIPTextConfig(
        vocab_size=len(tokenizers.clip),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizers.clip.bos_token_id,
        eos_token_id=tokenizers.clip.eos_token_id,
        pad_token_id=tokenizers.clip.pad_token_id,
    )
    t5 = T5Config(
        vocab_size=len(tokenizers.t5),
        d_model=WIDTH,
        d_kv=32,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return CLIPTextModel(clip), T5EncoderModel(t5)
