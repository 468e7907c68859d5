"""A tiny Krea 2 pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imax_dist.models.networks.krea2 import PREFIX, SUFFIX
from imax_dist.models.tiny.language import QWEN3_CHAT, qwen_tokenizer
from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler
from imax_dist.models.tiny.qwen_image import tiny_video_autoencoder

SETTINGS = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 2.0, extrapolated: 1.5}
text_tokens: 64
rope_factor: 1.0
native_shift: 1.6
shift_factor: 1.5
"""
LAYERS = (0, 1, 2)


def make_tiny(folder: Path) -> Path:
    """Write the pipeline into ``folder``: four query heads, two of keys, one block."""
    from diffusers import Krea2Transformer2DModel

    tokenizer = qwen_tokenizer([PREFIX + SUFFIX], QWEN3_CHAT)
    transformer = Krea2Transformer2DModel(
        in_channels=16, num_layers=1, attention_head_dim=12, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, timestep_embed_dim=32, text_hidden_dim=32, num_text_layers=len(LAYERS),
        text_num_attention_heads=2, text_num_key_value_heads=2, text_intermediate_size=32,
        num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip
    peaked(transformer, seed=11)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.endswith("scale_shift_table"):
                parameter.mul_(0.2)
    parts = {
        "transformer": transformer,
        "vae": tiny_video_autoencoder(),
        "text_encoder": _reader(len(tokenizer)),
        "tokenizer": tokenizer,
        "scheduler": scheduler(),
    }
    options = {"text_encoder_select_layers": list(LAYERS), "is_distilled": False, "patch_size": 2}
    return save_pipeline(folder, "Krea2Pipeline", parts, settings=SETTINGS, **options)


def _reader(vocabulary: int) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLModel

    text = dict(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
    )  # fmt: skip
    vision = dict(
        depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32,
        num_position_embeddings=16, deepstack_visual_indexes=[0],
    )  # fmt: skip
    return Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision))
