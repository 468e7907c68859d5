"""A tiny Qwen-Image 2.1 pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imax_dist.models.networks.qwen_image21 import TEMPLATE
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
vae_factor: 8
"""


def make_tiny(folder: Path) -> Path:
    """Write the pipeline into ``folder``: 8 x 8 tokens native, 4 heads, 2 blocks, pictures with opacity."""
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Transformer2DModel

    tokenizer = qwen_tokenizer([TEMPLATE.format("")], QWEN3_CHAT)
    transformer = QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=12, num_attention_heads=4,
        context_in_dim=32, mlp_ratio=2, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=6, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1,
        temperal_downsample=[False, True, True], scale_factor_spatial=8,
        latents_mean=[-0.7, 0.1, -0.2, 0.9], latents_std=[2.8, 1.4, 2.3, 2.6],
    )  # fmt: skip
    parts = {
        "transformer": peaked(transformer, seed=11),
        "vae": peaked(vae, seed=2, deviation=1.0),
        "text_encoder": _reader(len(tokenizer)),
        "processor": tokenizer,
        "scheduler": scheduler(),
    }
    return save_pipeline(folder, "QwenImage21Pipeline", parts, settings=SETTINGS)


def _reader(vocabulary: int) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = dict(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
    )  # fmt: skip
    vision = dict(
        depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32,
        num_position_embeddings=16, deepstack_visual_indexes=[0],
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))
