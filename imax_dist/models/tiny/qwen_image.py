"""A tiny Qwen-Image pipeline: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imax_dist.models.networks.qwen_image import TEMPLATE
from imax_dist.models.networks.qwen_image_edit import TEMPLATE as EDIT_TEMPLATE
from imax_dist.models.tiny.language import PICTURE_MARKS, QWEN3_CHAT, QWEN_MARKS, qwen_tokenizer
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
MARKS_OF_PICTURES = ("vision_start", "vision_end", "image_pad", "video_pad")


def make_tiny(folder: Path) -> Path:
    """Write the pipeline into ``folder``: 4 x 4 tokens native, 4 heads, 2 blocks, 0.9 MB."""
    tokenizer = qwen_tokenizer([TEMPLATE.format("")], QWEN3_CHAT)
    parts = {"text_encoder": text_encoder(len(tokenizer)), "tokenizer": tokenizer, **_parts()}
    return save_pipeline(folder, "QwenImagePipeline", parts, settings=SETTINGS)


def make_tiny_edit(folder: Path) -> Path:
    """Qwen-Image-Edit's kind, of August 2025."""
    return _make_edit(folder, "QwenImageEditPipeline", zero_cond_t=False)


def make_tiny_edit_plus(folder: Path) -> Path:
    """Qwen-Image-Edit-2511's kind: the picture's tokens are modulated as noise-free ones."""
    return _make_edit(folder, "QwenImageEditPlusPipeline", zero_cond_t=True)


def _make_edit(folder: Path, kind: str, *, zero_cond_t: bool) -> Path:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    words = EDIT_TEMPLATE.format("Picture 1: ", "", "")
    tokenizer = qwen_tokenizer([words], QWEN3_CHAT, (*QWEN_MARKS, *PICTURE_MARKS))
    marks = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in MARKS_OF_PICTURES}
    encoder = text_encoder(
        len(tokenizer), **{f"{name.removesuffix('_pad')}_token_id": mark for name, mark in marks.items()}
    )
    parts = {"text_encoder": encoder, "tokenizer": tokenizer, **_parts(1, zero_cond_t=zero_cond_t)}
    save_pipeline(folder, kind, parts, settings=SETTINGS)
    tokenizer.save_pretrained(folder / "processor")
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=56 * 56).save_pretrained(folder / "processor")
    return folder


def _parts(layers: int = 2, **options: Any) -> dict[str, Any]:
    from diffusers import QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=layers, attention_head_dim=12, num_attention_heads=4,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 4), **options,
    )  # fmt: skip
    return {
        "transformer": peaked(transformer, seed=11),
        "vae": tiny_video_autoencoder(),
        "scheduler": scheduler(),
    }


def tiny_video_autoencoder() -> Any:
    """Random weights, four latent channels."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1,
        latents_mean=[-0.7, 0.1, -0.2, 0.9], latents_std=[2.8, 1.4, 2.3, 2.6],
    )  # fmt: skip


def text_encoder(vocabulary: int, *, layers: int = 2, **tokens: int) -> Any:
    """A Qwen2.5-VL of width 32."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = dict(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=vocabulary - 1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    )  # fmt: skip
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    return Qwen2_5_VLForConditionalGeneration(config)
