"""Load a Lumina-Image-2.0 pipeline folder: diffusers' transformer and VAE, transformers' Gemma 2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_patches, load_components, read_configs, vae_factor
from imax_dist.models.gemma import load_gemma
from imax_dist.models.lumina2.adapter import Lumina2Model
from imax_dist.models.lumina2.processor import Lumina2Processor, TokensAsGiven
from imax_dist.models.precise import precise_norms
from imax_dist.models.weights import weights_hash

ROPE_THETA = 10_000.0
"""Fixed in Lumina2Transformer2DModel; no configuration key holds it."""


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput or BadConfig if they do not fit."""
    transformer, vae = read_configs(settings, folder)
    heads = int(transformer["num_attention_heads"])
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights_hash(folder),
        heads=heads,
        kv_heads=transformer.get("num_kv_heads"),
        head_dim=int(transformer["hidden_size"]) // heads,
        rope_axes=tuple(int(axis) for axis in transformer["axes_dim_rope"]),
        rope_theta=ROPE_THETA,
        latent_channels=int(transformer["in_channels"]),
        vae_factor=vae_factor(vae),
        patch=int(transformer["patch_size"]),
        guidance="classifier_free",
    )
    check_patches(
        spec,
        channels=spec.latent_channels,
        vae_channels=int(vae["latent_channels"]),
        patches=[spec.patch],
    )
    return spec


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> Lumina2Model:
    """Transformer, VAE and, with ``text``, the text encoder."""
    from diffusers import AutoencoderKL, Lumina2Transformer2DModel

    kinds = Lumina2Transformer2DModel, AutoencoderKL
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    encoders = load_gemma(folder, device=text, dtype=dtype) if text else None
    transformer.rope_embedder = TokensAsGiven(spec.patch)
    for module in transformer.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(Lumina2Processor())
    return Lumina2Model(spec, transformer=precise_norms(transformer), vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """There is one published model."""
    del transformer
    return "lumina-image-2"


ARCHITECTURE = Architecture(describe, load, settings_name)
