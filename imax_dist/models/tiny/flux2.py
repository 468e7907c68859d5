"""Tiny FLUX.2 pipelines: real classes, random weights, 64 px native."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imax_dist.models.tiny.language import QWEN3_CHAT, mistral_tokenizer, qwen3_reader, qwen_tokenizer
from imax_dist.models.tiny.parts import peaked, save_pipeline, scheduler

DEV = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 4.0, extrapolated: 4.0}
text_tokens: 80
rope_factor: 1.0
native_shift: 1.6
shift_factor: 1.5
"""
KLEIN = """\
native_side: 64
steps: {native: 3, extrapolated: 4}
guidance_scale: {native: 2.0, extrapolated: 1.5}
text_tokens: 40
rope_factor: 1.0
native_shift: 1.6
shift_factor: 1.5
"""


def make_tiny_dev(folder: Path) -> Path:
    """dev's kind: Mistral 3 reads, the guidance scale is an input."""
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    tokenizer = mistral_tokenizer([SYSTEM_MESSAGE])
    reader = _mistral_reader(len(tokenizer))
    return _make(folder, "Flux2Pipeline", reader, tokenizer, settings=DEV, guidance_embeds=True)


def make_tiny_klein(folder: Path) -> Path:
    """klein's kind before its distillation: Qwen3 reads, classifier-free guidance."""
    tokenizer = qwen_tokenizer(["user assistant think"], QWEN3_CHAT)
    reader = qwen3_reader(len(tokenizer), layers=4, head=True)
    return _make(folder, "Flux2KleinPipeline", reader, tokenizer, settings=KLEIN, guidance_embeds=False)


def _make(
    folder: Path, kind: str, reader: Any, tokenizer: Any, *, settings: str, guidance_embeds: bool
) -> Path:
    from diffusers import Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=96, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance_embeds,
        mlp_ratio=1.0, timestep_guidance_channels=32,
    )  # fmt: skip
    options = {} if guidance_embeds else {"is_distilled": False}
    parts = {
        "transformer": peaked(transformer, seed=11),
        "vae": tiny_patch_autoencoder(),
        "text_encoder": reader,
        "tokenizer": tokenizer,
        "scheduler": scheduler(),
    }
    return save_pipeline(folder, kind, parts, settings=settings, **options)


def tiny_patch_autoencoder() -> Any:
    """FLUX.2's class with four latent channels and a batch norm of their patches."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 4, 4, 4), latent_channels=4, norm_num_groups=2, layers_per_block=1,
    )  # fmt: skip
    channels = torch.arange(16.0)
    vae.bn.running_mean.copy_(0.1 * channels - 0.7)
    vae.bn.running_var.copy_(0.5 + 0.2 * channels)
    return vae


def _mistral_reader(vocabulary: int) -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = dict(
        model_type="mistral", vocab_size=vocabulary, hidden_size=32, intermediate_size=48,
        num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        max_position_embeddings=4096, bos_token_id=None, eos_token_id=vocabulary - 1,
    )  # fmt: skip
    vision = dict(
        model_type="pixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, head_dim=8, image_size=32, patch_size=16,
    )  # fmt: skip
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
