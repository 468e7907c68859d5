"""A tiny Qwen-Image pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imax_dist.models.networks.qwen_image import TEMPLATE
from imax_dist.models.tiny.language import QWEN3_CHAT, qwen_tokenizer
from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler

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
    """Write the pipeline into ``folder``: 4 x 4 tokens native, 4 heads, 2 blocks, 0.9 MB."""
    from diffusers import QwenImageTransformer2DModel

    tokenizer = qwen_tokenizer([TEMPLATE.format("")], QWEN3_CHAT)
    text_encoder = _text_encoder(len(tokenizer))
    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=12, num_attention_heads=4,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip
    parts = {
        "transformer": peaked(transformer, seed=11),
        "vae": tiny_video_autoencoder(),
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": scheduler(),
    }
    return save_pipeline(folder, "QwenImagePipeline", parts, settings=SETTINGS)


def tiny_video_autoencoder() -> Any:
    """Random weights, four latent channels."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1,
        latents_mean=[-0.7, 0.1, -0.2, 0.9], latents_std=[2.8, 1.4, 2.3, 2.6],
    )  # fmt: skip


def _text_encoder(vocabulary: int) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = dict(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=vocabulary - 1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    )  # fmt: skip
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
