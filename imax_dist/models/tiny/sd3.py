"""A tiny Stable Diffusion 3.5 pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path

from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.text import clip_config, clip_tokenizer, t5_encoder, t5_tokenizer
from imax_dist.models.tiny.vae import tiny_autoencoder

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 2.0, extrapolated: 1.5}
text_tokens: 20
native_shift: 1.6
shift_factor: 1.5
"""


def make_tiny(folder: Path) -> Path:
    """Write the pipeline into ``folder``: 4 x 4 tokens native, 24 at most, 4 heads, 2 blocks, 0.5 MB."""
    from diffusers import SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection

    clip, t5 = clip_tokenizer(), t5_tokenizer()
    clips = [
        peaked(CLIPTextModelWithProjection(clip_config(clip, width=32)), seed=seed, deviation=0.5)
        for seed in (3, 5)
    ]
    transformer = SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=80, caption_projection_dim=32,
        pooled_projection_dim=64, pos_embed_max_size=24, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    parts = {
        "transformer": peaked(transformer, seed=11),
        "vae": tiny_autoencoder(4, shift=0.06, factor=1.53),
        "text_encoder": clips[0],
        "tokenizer": clip,
        "text_encoder_2": clips[1],
        "tokenizer_2": clip,
        "text_encoder_3": t5_encoder(t5, width=80),
        "tokenizer_3": t5,
        "scheduler": scheduler(),
    }
    return save_pipeline(folder, "StableDiffusion3Pipeline", parts, settings=SETTINGS)
