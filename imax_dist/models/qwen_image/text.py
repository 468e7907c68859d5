"""A prompt for Qwen-Image: Qwen2.5-VL's last states of a described picture, without the instruction."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from imax_dist.models.reader import Reader, load_reader

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""QwenImagePipeline.prompt_template_encode."""
INSTRUCTION_TOKENS = 34
"""QwenImagePipeline.prompt_template_encode_start_idx: tokens before the prompt, which are dropped."""


def load_text_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Reader:
    """Load tokenizer and reader from a Qwen-Image pipeline folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    kind = Qwen2_5_VLForConditionalGeneration
    return load_reader(kind, folder, device=device, dtype=dtype, tokenizer=Qwen2Tokenizer)


@torch.no_grad()
def encode_text(encoder: Reader, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt alone, T at most ``tokens``: its own length, so nothing is masked."""
    encoded = encoder.tokenizer(
        [TEMPLATE.format(prompt)],
        max_length=1024 + INSTRUCTION_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).to(encoder.network.device)
    states: Tensor = encoder.network(
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        output_hidden_states=True,
        logits_to_keep=1,  # no words are read from its head
    ).hidden_states[-1]
    return states[:, INSTRUCTION_TOKENS : INSTRUCTION_TOKENS + tokens]
