"""A prompt for FLUX.2: the states a quarter, half and three quarters up a language model, side by side.

FLUX.2-dev reads layers 10, 20, 30 of Mistral's 40, klein layers 9, 18, 27 of Qwen3's 36. Both pad to a fixed
length, and the transformer attends to the padding too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.reader import Reader, load_reader


class TextEncoder(NamedTuple):
    """``is_klein`` tells whose messages the reader expects."""

    reader: Reader
    is_klein: bool


def load_text_encoder(
    folder: Path, *, is_klein: bool, device: torch.device, dtype: torch.dtype
) -> TextEncoder:
    """Load tokenizer and reader; of dev's PixtralProcessor the tokenizer is all that text needs."""
    from transformers import Mistral3ForConditionalGeneration, Qwen3Model

    kind = Qwen3Model if is_klein else Mistral3ForConditionalGeneration  # klein's head over words goes unread
    return TextEncoder(load_reader(kind, folder, device=device, dtype=dtype), is_klein)


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, tokens, 3 D); the prompt is padded or cut to ``tokens``."""
    make_inputs = _klein_inputs if encoder.is_klein else _dev_inputs
    inputs = make_inputs(encoder.reader.tokenizer, prompt, tokens)
    device = encoder.reader.network.device
    headless = {} if encoder.is_klein else {"logits_to_keep": 1}  # no words are read from Mistral's head
    states = encoder.reader.network(
        input_ids=inputs["input_ids"].to(device),
        attention_mask=inputs["attention_mask"].to(device),
        output_hidden_states=True,
        use_cache=False,
        **headless,
    ).hidden_states
    layers = len(states) - 1
    return torch.cat([states[layers * quarter // 4] for quarter in (1, 2, 3)], dim=-1)


def _klein_inputs(tokenizer: Any, prompt: str, tokens: int) -> Any:
    message = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return tokenizer(message, return_tensors="pt", padding="max_length", truncation=True, max_length=tokens)


def _dev_inputs(tokenizer: Any, prompt: str, tokens: int) -> Any:
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    texts = {"system": SYSTEM_MESSAGE, "user": prompt.replace("[IMG]", "")}
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()]
    return tokenizer.apply_chat_template(
        [messages],
        add_generation_prompt=False,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=tokens,
    )
