"""Load a Lumina-Next pipeline folder: diffusers' transformer and VAE, transformers' Gemma."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_patches, load_components, read_configs, vae_factor
from imax_dist.models.gemma import load_gemma
from imax_dist.models.lumina.adapter import LuminaModel
from imax_dist.models.lumina.processor import LuminaProcessor
from imax_dist.models.precise import precise_norms
from imax_dist.models.weights import weights_hash

ROPE_THETA = 10_000.0
"""LuminaPipeline's own; no configuration key holds it."""
NATIVE_2K = 256
"""``sample_size`` from which a bare folder takes the settings of the 2K model."""


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput or BadConfig if they do not fit."""
    transformer, vae = read_configs(settings, folder)
    heads = int(transformer["num_attention_heads"])
    head_dim = int(transformer["hidden_size"]) // heads
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights_hash(folder),
        heads=heads,
        kv_heads=transformer.get("num_kv_heads"),
        head_dim=head_dim,
        rope_axes=(head_dim // 2, head_dim // 2),
        axes=("row", "column"),
        rope_theta=ROPE_THETA,
        latent_channels=int(transformer["in_channels"]),
        vae_factor=vae_factor(vae),
        patch=int(transformer["patch_size"]),
        guidance="classifier_free",
        text="cross",
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
) -> LuminaModel:
    """Transformer, VAE and, with ``text``, the text encoder."""
    from diffusers import AutoencoderKL, LuminaNextDiT2DModel

    kinds = LuminaNextDiT2DModel, AutoencoderKL
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    encoders = load_gemma(folder, device=text, dtype=dtype) if text else None
    for module in transformer.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(LuminaProcessor())
    return LuminaModel(spec, transformer=precise_norms(transformer), vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """The 2K model's settings for a transformer of 2048 px, else those of 1024 px."""
    return "lumina-next-2k" if int(transformer.get("sample_size", 128)) >= NATIVE_2K else "lumina-next"


ARCHITECTURE = Architecture(describe, load, settings_name)
