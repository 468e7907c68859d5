"""Load a FLUX pipeline folder: diffusers' transformer and VAE, transformers' CLIP and T5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_packed, load_components, read_configs, vae_factor
from imax_dist.models.flux.adapter import FluxModel
from imax_dist.models.flux.positions import TableAsIds
from imax_dist.models.flux.text import load_text_encoders
from imax_dist.models.joint_attention import JointProcessor
from imax_dist.models.weights import weights_hash

ROPE_THETA = 10_000.0
"""Fixed in FluxTransformer2DModel; no configuration key holds it."""
PATCH = 2
ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
AXES = (16, 56, 56)
"""FluxTransformer2DModel's own default; the released FLUX.1 configurations do not hold the key."""


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput or BadConfig if they do not fit."""
    transformer, vae = read_configs(settings, folder, encoders=ENCODERS, tokenizers=TOKENIZERS)
    spec = spec_from_configs(name, settings, transformer=transformer, vae=vae, weights=weights_hash(folder))
    check_packed(spec, int(transformer["in_channels"]))
    return spec


def spec_from_configs(
    name: str, settings: ModelSettings, *, transformer: dict[str, Any], vae: dict[str, Any], weights: str
) -> ModelSpec:
    """The facts as the config.json of both parts tell them; ``weights`` is the hash of the files."""
    return ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer.get("axes_dims_rope", AXES)),
        rope_theta=ROPE_THETA,
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="distilled" if transformer.get("guidance_embeds") else "classifier_free",
    )


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> FluxModel:
    """Transformer, VAE and, with ``text``, both text encoders."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    kinds = FluxTransformer2DModel, AutoencoderKL
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    encoders = load_text_encoders(folder, device=text, dtype=dtype) if text else None
    transformer.pos_embed = TableAsIds()
    transformer.set_attn_processor(JointProcessor())
    return FluxModel(spec, transformer=transformer, vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """FLUX.1-dev's settings for a model that takes its guidance as an input, else FLUX.1-schnell's."""
    return "flux-dev" if transformer.get("guidance_embeds") else "flux-schnell"


ARCHITECTURE = Architecture(describe, load, settings_name)
