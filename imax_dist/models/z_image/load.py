"""Load a Z-Image pipeline folder: diffusers' transformer and VAE, transformers' Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.errors import BadValue
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_patches, load_components, read_configs, vae_factor
from imax_dist.models.precise import precise_norms
from imax_dist.models.weights import weights_hash
from imax_dist.models.z_image.adapter import ZImageModel
from imax_dist.models.z_image.processor import CallProcessor
from imax_dist.models.z_image.text import load_text_encoder

PATCH = 2


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput, BadConfig or BadValue if they do not fit."""
    transformer, vae = read_configs(settings, folder)
    width = transformer.get("siglip_feat_dim")
    if width is not None:
        raise BadValue(
            f"model {name}: its transformer reads pictures (siglip_feat_dim {width}), "
            "as Z-Image-Omni does; use Tongyi-MAI/Z-Image-Turbo or a fine-tune of it"
        )
    spec = _spec(name, settings, transformer=transformer, vae=vae, weights=weights_hash(folder))
    check_patches(
        spec,
        channels=int(transformer["in_channels"]),
        vae_channels=spec.latent_channels,
        patches=transformer["all_patch_size"],
    )
    return spec


def _spec(
    name: str, settings: ModelSettings, *, transformer: dict[str, Any], vae: dict[str, Any], weights: str
) -> ModelSpec:
    heads = int(transformer["n_heads"])
    return ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=heads,
        head_dim=int(transformer["dim"]) // heads,
        rope_axes=tuple(int(axis) for axis in transformer["axes_dims"]),
        rope_theta=float(transformer["rope_theta"]),
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="classifier_free",
    )


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> ZImageModel:
    """Transformer, VAE and, with ``text``, the text encoder."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel

    kinds = ZImageTransformer2DModel, AutoencoderKL
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    encoders = load_text_encoder(folder, device=text, dtype=dtype) if text else None
    for blocks in (transformer.noise_refiner, transformer.context_refiner, transformer.layers):
        for block in blocks:
            block.attention.set_processor(CallProcessor())
    return ZImageModel(spec, transformer=precise_norms(transformer), vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """The fast model's settings: base and turbo have the same configuration."""
    del transformer
    return "z-image-turbo"


ARCHITECTURE = Architecture(describe, load, settings_name)
