"""Pieces of the tiny pipelines: a byte-level tokenizer trained on a few captions, random weights.

The weights are large, so that attention is peaked: nearly uniform attention would hide a wrong
log-sum-exp or a token counted twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

CAPTIONS = (
    "a red sun on the left in a blue sky over the sea with two white boats",
    "a white moon in a dark sky over the snow with one black house",
    "a yellow sun on the right in an orange sky over the desert with three green trees",
    "a picture of a poster with the sea and a boat",
)
"""What the tokenizers learn: each of these words is one token, anything else is spelt in bytes."""


def qwen_tokenizer(texts: Iterable[str], specials: list[str], chat_template: str) -> Any:
    """A Qwen2Tokenizer whose merges were learnt from ``texts`` and CAPTIONS."""
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
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=merges,
        additional_special_tokens=specials,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


@torch.no_grad()
def peaked(module: nn.Module, *, seed: int, deviation: float = 1.5) -> nn.Module:
    """Matrices normal with ``deviation`` / sqrt(inputs); vectors keep the library's start values."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            scale = deviation / parameter[0].numel() ** 0.5
            parameter.normal_(0.0, scale, generator=generator)
    return module


def save_pipeline(folder: Path, kind: str, parts: dict[str, Any], **options: Any) -> Path:
    """Write ``parts`` in diffusers layout, weights as bfloat16, and the index that names their classes."""
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": "0.42.1", **options}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            part.to(torch.bfloat16)
        part.save_pretrained(folder / name)
        library = type(part).__module__.split(".")[0]
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
    return folder


def scheduler() -> Any:
    """diffusers' flow-matching Euler scheduler; the package makes its own noise levels."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
