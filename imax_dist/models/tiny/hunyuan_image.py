"""Tiny HunyuanImage 2.1 pipelines: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imax_dist.models.networks.qwen_image import TEMPLATE
from imax_dist.models.tiny.language import QWEN3_CHAT, qwen_tokenizer
from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.qwen_image import text_encoder

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 2.0, extrapolated: 1.5}
text_tokens: 64
rope_factor: 1.0
native_shift: 1.6
shift_factor: 1.5
"""


def make_tiny(folder: Path) -> Path:
    """The guided model: its first step is guided plainly, the others with the momentum."""
    from diffusers import AdaptiveProjectedMixGuidance

    guiders = {
        name: AdaptiveProjectedMixGuidance(
            guidance_scale=2.0,
            adaptive_projected_guidance_scale=scale,
            adaptive_projected_guidance_rescale=20.0,
            adaptive_projected_guidance_start_step=0,
        )
        for name, scale in (("guider", 3.0), ("ocr_guider", 2.5))
    }
    return save_pipeline(folder, "HunyuanImagePipeline", {**_parts(), **guiders}, settings=SETTINGS)


def make_tiny_distilled(folder: Path) -> Path:
    """The distilled model: guidance, and the time that a step ends at, are inputs of its network."""
    parts = _parts(guidance_embeds=True, use_meanflow=True)
    return save_pipeline(folder, "HunyuanImagePipeline", parts, settings=SETTINGS)


def _parts(**options: bool) -> dict[str, Any]:
    """4 x 4 tokens native, 4 heads, one block of each kind."""
    from diffusers import HunyuanImageTransformer2DModel
    from transformers import ByT5Tokenizer

    tokenizer = qwen_tokenizer([TEMPLATE.format("")], QWEN3_CHAT)
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=12, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=32, text_embed_2_dim=16,
        rope_axes_dim=(8, 4), **options,
    )  # fmt: skip
    return {
        "transformer": peaked(transformer, seed=11),
        "vae": _autoencoder(),
        "text_encoder": text_encoder(len(tokenizer), layers=3),
        "tokenizer": tokenizer,
        "text_encoder_2": _reader_of_letters(),
        "tokenizer_2": ByT5Tokenizer(),
        "scheduler": scheduler(),
    }


def _autoencoder() -> Any:
    """16 image pixels a latent pixel; its norms have 32 groups, so its maps have 32 channels."""
    from diffusers import AutoencoderKLHunyuanImage

    vae = AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32,) * 5, layers_per_block=1,
        spatial_compression_ratio=16, sample_size=64, scaling_factor=0.8,
    )  # fmt: skip
    return peaked(vae, seed=2, deviation=1.0)


def _reader_of_letters() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=384, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    return peaked(T5EncoderModel(config), seed=4, deviation=0.5)
