"""A Lumina-Next pipeline of a few hundred kilobytes: real classes and tokenizer, random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.text import gemma_config, gemma_tokenizer
from imax_dist.models.tiny.vae import tiny_autoencoder

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 4.0, extrapolated: 4.0}
text_tokens: 32
rope_factor: 1.0
native_shift: 1.0
shift_factor: 1.0
"""


def make_tiny(folder: Path) -> Path:
    """Eight query heads, four key heads, so that up to four Ulysses ranks share them."""
    from diffusers import LuminaNextDiT2DModel
    from transformers import GemmaConfig, GemmaModel

    tokenizer = gemma_tokenizer()
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=64,
        num_layers=2,
        num_attention_heads=8,
        num_kv_heads=4,
        multiple_of=16,
        cross_attention_dim=32,
    )
    with torch.no_grad():
        transformer.pad_token.zero_()  # torch.empty, never used
        for layer in transformer.layers:
            layer.gate.fill_(0.5)  # cross-attention starts at zero; here it takes part
    parts = {
        "scheduler": scheduler(),
        "vae": tiny_autoencoder(4),
        "text_encoder": peaked(GemmaModel(GemmaConfig(**gemma_config(tokenizer, width=32))), seed=3),
        "tokenizer": tokenizer,
        "transformer": peaked(transformer, seed=1),
    }
    return save_pipeline(folder, "LuminaPipeline", parts, settings=SETTINGS)
