"""FLUX.1, its editors and Chroma in a few hundred kilobytes: real classes and tokenizers, random weights."""

from __future__ import annotations

from pathlib import Path

from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from imax_dist.models.tiny.vae import tiny_autoencoder

DEV = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 3.5, extrapolated: 7.0}
text_tokens: 16
"""
SCHNELL = """\
native_side: 64
steps: {native: 2, extrapolated: 4}
guidance_scale: {native: 1.0, extrapolated: 1.0}
text_tokens: 16
native_shift: 1.0
"""


CHROMA = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 3.0, extrapolated: 3.0}
text_tokens: 16
"""


def make_tiny_dev(folder: Path) -> Path:
    """FLUX.1-dev's kind: the guidance scale is an input."""
    return _make(folder, guidance_embeds=True, settings=DEV)


def make_tiny_schnell(folder: Path) -> Path:
    """FLUX.1-schnell's kind: no guidance input."""
    return _make(folder, guidance_embeds=False, settings=SCHNELL)


def make_tiny_kontext(folder: Path) -> Path:
    """FLUX.1-Kontext-dev's kind."""
    return _make(folder, guidance_embeds=True, settings=DEV, kind="FluxKontextPipeline")


def make_tiny_fill(folder: Path) -> Path:
    """FLUX.1-Fill-dev's kind: 64 channels of noise, 64 of the picture, 256 of its mask."""
    return _make(folder, guidance_embeds=True, settings=DEV, kind="FluxFillPipeline", channels=384)


def _make(
    folder: Path, *, guidance_embeds: bool, settings: str, kind: str = "FluxPipeline", channels: int = 64
) -> Path:
    from diffusers import FluxTransformer2DModel

    clip, t5 = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=channels,
        out_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=guidance_embeds,
    )
    parts = {
        "scheduler": scheduler(),
        "vae": tiny_autoencoder(16, shift=0.1),
        "text_encoder": clip_encoder(clip, width=32),
        "tokenizer": clip,
        "text_encoder_2": t5_encoder(t5, width=32),
        "tokenizer_2": t5,
        "transformer": peaked(transformer, seed=1),
    }
    return save_pipeline(folder, kind, parts, settings=settings)


def make_tiny_chroma(folder: Path) -> Path:
    """Chroma's kind: T5 alone, modulation from a network of its own."""
    from diffusers import ChromaTransformer2DModel

    t5 = t5_tokenizer()
    transformer = ChromaTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, axes_dims_rope=(2, 2, 4),
        approximator_num_channels=16, approximator_hidden_dim=32, approximator_layers=2,
    )  # fmt: skip
    parts = {
        "scheduler": scheduler(),
        "vae": tiny_autoencoder(16, shift=0.1),
        "text_encoder": t5_encoder(t5, width=32),
        "tokenizer": t5,
        "transformer": peaked(transformer, seed=1),
    }
    return save_pipeline(folder, "ChromaPipeline", parts, settings=CHROMA)
