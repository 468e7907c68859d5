"""A Lumina-Image-2.0 pipeline of a few hundred kilobytes: real classes and tokenizer, random weights."""

from __future__ import annotations

from pathlib import Path

from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.text import gemma_config, gemma_tokenizer
from imax_dist.models.tiny.vae import tiny_autoencoder

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 4.0, extrapolated: 4.0}
text_tokens: 256
rope_factor: 1.0
native_shift: 1.0
shift_factor: 1.0
"""


def make_tiny(folder: Path) -> Path:
    """Twelve query heads, four key heads: groups of three, as the published model has."""
    from diffusers import Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = gemma_tokenizer()
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=96,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=12,
        num_kv_heads=4,
        multiple_of=16,
        ffn_dim_multiplier=0.25,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 64, 64),
        cap_feat_dim=32,
    )
    parts = {
        "scheduler": scheduler(),
        "vae": tiny_autoencoder(4, shift=0.1),
        "text_encoder": peaked(Gemma2Model(Gemma2Config(**gemma_config(tokenizer, width=32))), seed=3),
        "tokenizer": tokenizer,
        "transformer": peaked(transformer, seed=1),
    }
    return save_pipeline(folder, "Lumina2Pipeline", parts, settings=SETTINGS)
