"""Chroma: FLUX.1's network with its modulation from a network of its own, one text encoder, a second prompt.

Its text ends with one token of padding, which it was trained to see; the rest is cut away. diffusers adds its
mask of ones and zeros to the attention as a bias instead (DECISIONS 92).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imax_dist.models.architecture import Architecture, always
from imax_dist.models.base import PassInputs
from imax_dist.models.components import Configs, packed_spec
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import JointProcessor, TableAsIds
from imax_dist.models.networks.flux import FluxModel, with_rope
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.shapes import Latents


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load T5 from a Chroma pipeline folder."""
    from transformers import T5EncoderModel, T5TokenizerFast

    return load_text_encoder(T5EncoderModel, folder, device=device, dtype=dtype, tokenizer=T5TokenizerFast)


@torch.no_grad()
def encode_text(t5: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt and one token of padding, T at most ``tokens``."""
    encoded = t5.tokenizer(
        [prompt], padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    ).to(t5.network.device)
    states: Tensor = t5.network(encoded.input_ids, attention_mask=encoded.attention_mask).last_hidden_state
    return states[:, : int(encoded.attention_mask.sum()) + 1]


class ChromaModel(FluxModel):
    """``encoders`` are a TextEncoder of T5."""

    def prepare(self, transformer: Any) -> None:
        transformer.pos_embed = TableAsIds()
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
            block.attn.set_processor(JointProcessor())

    def embed(self, text: str) -> Prompt:
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

    def other_inputs(self, x: Latents, prompt: Prompt, inputs: PassInputs) -> dict[str, Any]:
        del x, prompt, inputs
        return {}


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    return packed_spec(name, settings, with_rope(configs), weights)


ARCHITECTURE = Architecture(
    facts=facts,
    model=ChromaModel,
    networks=("ChromaTransformer2DModel", "AutoencoderKL"),
    load_text=load_encoder,
    settings=always("chroma"),
)
