"""Load a Stable Diffusion 3 or 3.5 folder: diffusers' transformer and VAE, transformers' two CLIPs and T5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_patches, load_components, read_configs, vae_factor
from imax_dist.models.joint_attention import JointProcessor
from imax_dist.models.precise import precise_norms
from imax_dist.models.sd3.adapter import SD3Model
from imax_dist.models.sd3.processor import ImageProcessor
from imax_dist.models.sd3.text import load_text_encoders
from imax_dist.models.sd3.tokens import TokensAsRow
from imax_dist.models.weights import weights_hash

PATCH = 2
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
HEADS_OF_LARGE = 38


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput or BadConfig if they do not fit."""
    transformer, vae = read_configs(settings, folder, encoders=ENCODERS, tokenizers=TOKENIZERS)
    head_dim = int(transformer["attention_head_dim"])
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights_hash(folder),
        heads=int(transformer["num_attention_heads"]),
        head_dim=head_dim,
        rope_axes=(head_dim,),
        rope_theta=1.0,
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="classifier_free",
        axes=("fixed",),
        positions="absolute",
        largest_side=int(transformer["pos_embed_max_size"]),
    )
    check_patches(
        spec,
        channels=int(transformer["in_channels"]),
        vae_channels=spec.latent_channels,
        patches=[transformer["patch_size"]],
    )
    return spec


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> SD3Model:
    """Transformer, VAE and, with ``text``, the three text encoders."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    kinds = SD3Transformer2DModel, AutoencoderKL
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    encoders = load_text_encoders(folder, device=text, dtype=dtype) if text else None
    precise_norms(transformer)
    embedder, transformer.pos_embed = transformer.pos_embed, TokensAsRow()
    for block in transformer.transformer_blocks:
        block.attn.set_processor(JointProcessor())
        if block.attn2 is not None:
            block.attn2.set_processor(ImageProcessor())
    return SD3Model(spec, transformer=transformer, embedder=embedder, vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """SD3.5 Large's settings for a network of its width, else those of Medium."""
    return "sd3.5-large" if transformer.get("num_attention_heads") == HEADS_OF_LARGE else "sd3.5-medium"


ARCHITECTURE = Architecture(describe, load, settings_name)
