"""Tokenizers of CLIP's and T5's classes that keep a list of words whole and spell any other in letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MARKS = "'.,-"


def clip_tokenizer(words: Sequence[str], letters: str, *, tokens: int) -> Any:
    """A CLIPTokenizer, the same in every process; ``tokens`` is its longest text."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import CLIPTokenizer

    bare = CLIPTokenizer(model_max_length=tokens).backend_tokenizer
    end = "</w>"
    pairs = Tokenizer(models.BPE(end_of_word_suffix=end, unk_token="<|endoftext|>"))
    pairs.normalizer, pairs.pre_tokenizer = bare.normalizer, bare.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix=end,
        show_progress=False,
    )
    often = [" ".join([word] * (97 + k * k)) for k, word in enumerate(words)]  # no two pairs tie
    pairs.train_from_iterator([*often, *letters, MARKS], trainer)
    learnt = json.loads(pairs.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=_numbered(learnt["vocab"], merges), merges=merges, model_max_length=tokens)


def _numbered(learnt: dict[str, int], merges: list[tuple[str, ...]]) -> dict[str, int]:
    """The vocabulary with the same ids in every process; the trainer numbers letters by chance."""
    special = [piece for piece in learnt if piece.startswith("<|")]
    made = dict.fromkeys("".join(pair) for pair in merges)
    letters = sorted(set(learnt) - set(special) - set(made))
    return {piece: k for k, piece in enumerate([*sorted(special, reverse=True), *letters, *made])}


def t5_tokenizer(words: Sequence[str], letters: str, *, tokens: int) -> Any:
    """A T5TokenizerFast; ``tokens`` is its longest text."""
    from transformers import T5TokenizerFast

    pieces = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0}
    pieces |= {f"\u2581{word}": -2.0 for word in words}
    pieces |= {"\u2581": -8.0} | {letter: -10.0 for letter in letters + ",.'-"}
    return T5TokenizerFast(vocab=list(pieces.items()), extra_ids=0, model_max_length=tokens)
