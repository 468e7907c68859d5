"""Tokenizers trained on a few captions, and encoders of their real classes: CLIP, T5, Gemma."""

from __future__ import annotations

import json
import string
from typing import Any

from imax_dist.models import closed_vocabulary
from imax_dist.models.tiny.parts import CAPTIONS, peaked

LETTERS = string.ascii_letters + string.digits
LENGTH = 16


def words() -> list[str]:
    """Every word of the captions, once, in order."""
    return list(dict.fromkeys(" ".join(CAPTIONS).split()))


def clip_tokenizer() -> Any:
    """A CLIPTokenizer: known words are one token, others are spelt."""
    return closed_vocabulary.clip_tokenizer(words(), LETTERS, tokens=LENGTH)


def clip_encoder(tokenizer: Any, *, width: int) -> Any:
    """A CLIPTextModel of one layer."""
    from transformers import CLIPTextModel

    return peaked(CLIPTextModel(clip_config(tokenizer, width=width)), seed=3, deviation=0.5)


def clip_config(tokenizer: Any, *, width: int) -> Any:
    """Its settings; the end token must be the real one, as CLIP pools there."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5_tokenizer() -> Any:
    """A T5TokenizerFast: known words are one piece, others are spelt."""
    return closed_vocabulary.t5_tokenizer(words(), LETTERS, tokens=LENGTH)


def t5_encoder(tokenizer: Any, *, width: int) -> Any:
    """A T5EncoderModel of one layer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return peaked(T5EncoderModel(config), seed=4, deviation=0.5)


def gemma_tokenizer() -> Any:
    """A GemmaTokenizer with byte fallback; its <bos> keeps the empty prompt from being all padding."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    pairs = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pairs.normalizer = normalizers.Replace(" ", "\u2581")
    pairs.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=specials, show_progress=False)
    pairs.train_from_iterator(["a " + " ".join(words()) + " a"] * 5 + list(LETTERS), trainer)
    learnt = json.loads(pairs.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return GemmaTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=256, add_bos_token=True)


def gemma_config(tokenizer: Any, *, width: int) -> dict[str, Any]:
    """Settings that GemmaConfig and Gemma2Config share, keys and values in groups."""
    return dict(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
