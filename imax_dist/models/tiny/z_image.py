"""A tiny Z-Image pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path

from imax_dist.models.tiny.language import QWEN3_CHAT, qwen3_reader, qwen_tokenizer
from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.vae import tiny_autoencoder

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 2.0, extrapolated: 1.5}
text_tokens: 48
rope_factor: 1.0
native_shift: 1.6
shift_factor: 1.5
"""


def make_tiny(folder: Path) -> Path:
    """Write the pipeline into ``folder``: 4 x 4 tokens native, 4 heads, refiners and one layer, 0.8 MB.

    Most of it is the embedding of time, whose width of 1024 is fixed in the transformer's code.
    """
    from diffusers import ZImageTransformer2DModel

    tokenizer = qwen_tokenizer(["user assistant"], QWEN3_CHAT)
    text_encoder = qwen3_reader(len(tokenizer), layers=2, head=False)
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=4, n_kv_heads=4,
        cap_feat_dim=32, axes_dims=[2, 2, 4], axes_lens=[1024, 512, 512],
    )  # fmt: skip
    transformer.x_pad_token.data.normal_()
    transformer.cap_pad_token.data.normal_()
    vae = tiny_autoencoder(4, shift=0.12, factor=0.36)
    parts = {
        "transformer": peaked(transformer, seed=11),
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": scheduler(),
    }
    return save_pipeline(folder, "ZImagePipeline", parts, settings=SETTINGS)
