"""diffusers' own pipelines whose parts are put together here, as no ``from_pretrained`` reads tiny ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imax_dist.models.weights import pipeline_index


def plain_scheduler() -> Any:
    """Without shifts of its own."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)


def flux3_pipeline(folder: Path) -> Any:
    """The modular pipeline of FLUX.3 or its distilled form, without the step that rewrites prompts; of
    its processor the tokenizer is used."""
    import diffusers
    from diffusers import AutoencoderKLFlux2, Flux3Transformer2DModel
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    blocks = getattr(diffusers, pipeline_index(folder)["_blocks_class_name"])()
    blocks.sub_blocks.pop("prompt_upsampler")
    pipe = blocks.init_pipeline()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.tokenizer = tokenizer
    kinds = {
        "transformer": Flux3Transformer2DModel,
        "vae": AutoencoderKLFlux2,
        "text_encoder": Qwen3VLForConditionalGeneration,
    }
    parts = {
        name: kind.from_pretrained(folder / name, torch_dtype=torch.float32).eval()
        for name, kind in kinds.items()
    }
    pipe.update_components(**parts, tokenizer=tokenizer, scheduler=plain_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def qwen_image21_pipeline(folder: Path) -> Any:
    """QwenImage21Pipeline; of its processor the tokenizer is used, as it reads text alone."""
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline, QwenImage21Transformer2DModel
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    kinds = {
        "transformer": QwenImage21Transformer2DModel,
        "vae": AutoencoderKLQwenImage21,
        "text_encoder": Qwen3VLForConditionalGeneration,
    }
    parts = {name: kind.from_pretrained(folder / name).float().eval() for name, kind in kinds.items()}
    tokenizer = AutoTokenizer.from_pretrained(folder / "processor")

    class Processor(type(tokenizer)):
        @property
        def tokenizer(self) -> Any:
            return self

        def apply_chat_template(self, messages: Any, **how: Any) -> Any:
            ((system,),) = (message["content"] for message in messages)
            return [self(f"<|im_start|>system\n{system['text']}<|im_end|>\n").input_ids]

    tokenizer.__class__ = Processor
    pipe = QwenImage21Pipeline(**parts, processor=tokenizer, scheduler=plain_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe
