"""Load a FLUX pipeline folder: diffusers' transformer and VAE, transformers' CLIP and T5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from imax_dist.errors import BadConfig, MissingInput
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.flux.adapter import FluxModel
from imax_dist.models.flux.positions import TableAsIds
from imax_dist.models.flux.processor import EngineProcessor
from imax_dist.models.flux.text import load_text_encoders
from imax_dist.models.weights import component_config, require_tokenizer, weights_hash, whole

ROPE_THETA = 10_000.0
"""Fixed in FluxTransformer2DModel; no configuration key holds it."""
PATCH = 2
AXES = (16, 56, 56)
"""FluxTransformer2DModel's own default; the released FLUX.1 configurations do not hold the key."""


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput or BadConfig if they do not fit."""
    transformer = component_config(folder, "transformer")
    vae = component_config(folder, "vae")
    for component in ("text_encoder", "text_encoder_2"):
        component_config(folder, component)
    for component in ("tokenizer", "tokenizer_2"):
        require_tokenizer(folder, component)
    try:
        spec = _spec(name, settings, transformer=transformer, vae=vae, weights=weights_hash(folder))
        packed = int(transformer["in_channels"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadConfig(
            f"model {name}: the config.json of transformer or vae lacks a key or holds a wrong value: {error}"
        ) from error
    patches = spec.latent_channels * PATCH**2
    if packed != patches:
        raise BadConfig(
            f"model {name}: the transformer takes {packed} channels, but {PATCH} x {PATCH} patches of the "
            f"VAE's {spec.latent_channels} channels make {patches}"
        )
    if sum(spec.rope_axes) != spec.head_dim:
        raise BadConfig(
            f"model {name}: position axes {spec.rope_axes} do not add up to head_dim {spec.head_dim}"
        )
    return spec


def _spec(
    name: str, settings: ModelSettings, *, transformer: dict[str, Any], vae: dict[str, Any], weights: str
) -> ModelSpec:
    return ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer.get("axes_dims_rope", AXES)),
        rope_theta=ROPE_THETA,
        latent_channels=int(vae["latent_channels"]),
        vae_factor=2 ** (len(vae["block_out_channels"]) - 1),
        patch=PATCH,
        guidance="distilled" if transformer.get("guidance_embeds") else "classifier_free",
    )


def load(spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: bool) -> FluxModel:
    """Load the weights (safetensors, memory-mapped). Raises MissingInput if a file does not load."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    try:
        transformer = whole(FluxTransformer2DModel, folder / "transformer", torch_dtype=dtype)
        vae = whole(AutoencoderKL, folder / "vae", torch_dtype=dtype)
        encoders = load_text_encoders(folder, device=device, dtype=dtype) if text else None
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingInput(f"model {spec.name} does not load from {folder}: {error}") from error
    transformer.pos_embed = TableAsIds()
    transformer.set_attn_processor(EngineProcessor())
    return FluxModel(
        spec,
        transformer=transformer.to(device).eval(),
        vae=vae.to(device).eval(),
        encoders=encoders,
    )
