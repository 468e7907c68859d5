"""Load a Lumina-Image-2.0 pipeline folder: diffusers' transformer and VAE, transformers' Gemma 2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.gemma import load_gemma
from imax_dist.models.lumina2.adapter import Lumina2Model
from imax_dist.models.lumina2.processor import Lumina2Processor, TokensAsGiven
from imax_dist.models.precise import precise_norms
from imax_dist.models.quantised import load_transformer
from imax_dist.models.weights import component_config, require_text, weights_hash, whole

ROPE_THETA = 10_000.0
"""Fixed in Lumina2Transformer2DModel; no configuration key holds it."""


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files."""
    transformer, vae = component_config(folder, "transformer"), component_config(folder, "vae")
    require_text(folder, encoders=("text_encoder",), tokenizers=("tokenizer",))
    heads = int(transformer["num_attention_heads"])
    return ModelSpec(
        name=name,
        settings=settings,
        weights=weights_hash(folder),
        heads=heads,
        kv_heads=transformer.get("num_kv_heads"),
        head_dim=int(transformer["hidden_size"]) // heads,
        rope_axes=tuple(int(axis) for axis in transformer["axes_dim_rope"]),
        rope_theta=ROPE_THETA,
        latent_channels=int(transformer["in_channels"]),
        vae_factor=2 ** (len(vae["block_out_channels"]) - 1),
        patch=int(transformer["patch_size"]),
        guidance="classifier_free",
    )


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> Lumina2Model:
    """Transformer, VAE and, with ``text``, the text encoder."""
    from diffusers import AutoencoderKL, Lumina2Transformer2DModel

    transformer = load_transformer(Lumina2Transformer2DModel, spec, folder, dtype=dtype)
    vae = whole(AutoencoderKL, folder / "vae", torch_dtype=dtype)
    encoders = load_gemma(folder, device=text, dtype=dtype) if text else None
    transformer.rope_embedder = TokensAsGiven(spec.patch)
    for module in transformer.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(Lumina2Processor())
    return Lumina2Model(
        spec,
        transformer=precise_norms(transformer).to(device).eval(),
        vae=vae.to(device).eval(),
        encoders=encoders,
    )


def settings_name(transformer: Mapping[str, Any]) -> str:
    """There is one published model."""
    del transformer
    return "lumina-image-2"


ARCHITECTURE = Architecture(describe, load, settings_name)
