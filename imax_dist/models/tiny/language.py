"""Tiny readers of prompts: Qwen3, byte-level tokenizers of Qwen's and Mistral's kind, chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from imax_dist.models.tiny.parts import CAPTIONS

QWEN3_CHAT = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}
{%- if add_generation_prompt and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}"""
"""The shape of Qwen3's chat template: role and content, an empty thought unless thinking is on."""


MISTRAL_CHAT = """\
{{- '<s>' }}
{%- for message in messages %}
{%- set mark = 'SYSTEM_PROMPT' if message.role == 'system' else 'INST' %}
{{- '[' + mark + ']' }}
{%- for block in message.content %}{{- block.text }}{%- endfor %}
{{- '[/' + mark + ']' }}
{%- endfor %}"""
"""The shape of Mistral Small's chat template: blocks of text between marks."""


QWEN_MARKS = ("<|im_start|>", "<|im_end|>")
PICTURE_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen_tokenizer(texts: Iterable[str], chat_template: str, marks: Iterable[str] = QWEN_MARKS) -> Any:
    """A Qwen2Tokenizer whose merges were learnt from ``texts`` and CAPTIONS."""
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _learnt_merges(texts)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        additional_special_tokens=list(marks),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def mistral_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level tokenizer with Mistral's marks; it pads on the left, as Mistral's does."""
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    vocabulary, merges = _learnt_merges(texts)
    backend = Qwen2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        additional_special_tokens=["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"],
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=4096,
    )
    tokenizer.chat_template = MISTRAL_CHAT
    return tokenizer


def _learnt_merges(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level tokenizer that keeps every word of ``texts`` whole."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bare = Qwen2Tokenizer().backend_tokenizer
    pairs = Tokenizer(models.BPE())
    pairs.normalizer, pairs.pre_tokenizer = bare.normalizer, bare.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator([*texts, *CAPTIONS], trainer)
    learnt = json.loads(pairs.to_str())["model"]
    return learnt["vocab"], [tuple(pair) for pair in learnt["merges"]]


def qwen3_reader(vocabulary: int, *, layers: int, head: bool) -> Any:
    """A Qwen3 of width 32, with its ``head`` over words (FLUX.2-klein) or without (Z-Image)."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=vocabulary - 1, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config) if head else Qwen3Model(config)
