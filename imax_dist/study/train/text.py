"""Tokenizers and text encoders of our own: a CLIP and a T5 small enough for a closed vocabulary."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

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
    return Tokenizers(_clip_tokenizer(), _t5_tokenizer())


def _t5_tokenizer() -> T5TokenizerFast:
    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0}
    pieces |= {f"\u2581{word}": -2.0 for word in vocabulary()}
    pieces |= {"\u2581": -8.0} | {letter: -10.0 for letter in _LETTERS + ",.'-"}
    return T5TokenizerFast(vocab=list(pieces.items()), extra_ids=0, model_max_length=TEXT_TOKENS)


def _clip_tokenizer() -> CLIPTokenizer:
    bare = CLIPTokenizer(model_max_length=TEXT_TOKENS).backend_tokenizer
    end = "</w>"
    pairs = Tokenizer(models.BPE(end_of_word_suffix=end, unk_token="<|endoftext|>"))
    pairs.normalizer, pairs.pre_tokenizer = bare.normalizer, bare.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix=end,
        show_progress=False,
    )
    often = [" ".join([word] * (97 + k * k)) for k, word in enumerate(vocabulary())]  # no two pairs tie
    pairs.train_from_iterator([*often, *_LETTERS, "'.,-"], trainer)
    learnt = json.loads(pairs.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(
        vocab=_numbered(learnt["vocab"], merges), merges=merges, model_max_length=TEXT_TOKENS
    )


def _numbered(learnt: dict[str, int], merges: list[tuple[str, ...]]) -> dict[str, int]:
    """The vocabulary with the same ids in every process; the trainer numbers letters by chance."""
    special = [piece for piece in learnt if piece.startswith("<|")]
    made = dict.fromkeys("".join(pair) for pair in merges)
    letters = sorted(set(learnt) - set(special) - set(made))
    return {piece: k for k, piece in enumerate([*sorted(special, reverse=True), *letters, *made])}


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
