"""Load a FLUX.2 pipeline folder: diffusers' transformer and VAE, transformers' Mistral 3 or Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.errors import BadConfig
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_packed, load_components, read_configs, vae_factor
from imax_dist.models.flux.positions import TableAsIds
from imax_dist.models.flux2.adapter import Flux2Model
from imax_dist.models.flux2.processor import ParallelBlockProcessor
from imax_dist.models.flux2.text import load_text_encoder
from imax_dist.models.joint_attention import JointProcessor
from imax_dist.models.weights import component_config, pipeline_index, weights_hash

PATCH = 2
ROPE = {"axes_dims_rope": (32, 32, 32, 32), "rope_theta": 2000}
"""Flux2Transformer2DModel's own defaults, for configurations without the keys."""
KLEIN = "Flux2KleinPipeline"


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput or BadConfig if they do not fit."""
    own, vae = read_configs(settings, folder)
    transformer = {**ROPE, **own}
    text = component_config(folder, "text_encoder")
    layers = int(text.get("text_config", text)["num_hidden_layers"])
    if layers % 4:
        raise BadConfig(
            f"model {name}: the text encoder has {layers} layers, but FLUX.2 reads it a quarter, half and "
            "three quarters up, which needs a multiple of 4"
        )
    spec = _spec(name, settings, folder, transformer=transformer, vae=vae)
    check_packed(spec, int(transformer["in_channels"]))
    if len(spec.rope_axes) != len(spec.axes):
        raise BadConfig(
            f"model {name}: its position axes are {spec.rope_axes}, but FLUX.2 has {len(spec.axes)}: "
            "time, row, column and place in the prompt"
        )
    return spec


def _spec(
    name: str, settings: ModelSettings, folder: Path, *, transformer: dict[str, Any], vae: dict[str, Any]
) -> ModelSpec:
    # klein's few-step models hold their guidance within: a scale would change nothing, as in diffusers
    distilled = transformer.get("guidance_embeds", True) or pipeline_index(folder).get("is_distilled")
    return ModelSpec(
        name=name,
        settings=settings,
        weights=weights_hash(folder),
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer["axes_dims_rope"]),
        rope_theta=float(transformer["rope_theta"]),
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="distilled" if distilled else "classifier_free",
        axes=("fixed", "row", "column", "fixed"),
    )


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> Flux2Model:
    """Transformer, VAE and, with ``text``, the text encoder."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    kinds = Flux2Transformer2DModel, AutoencoderKLFlux2
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    is_klein = pipeline_index(folder)["_class_name"] == KLEIN
    encoders = load_text_encoder(folder, is_klein=is_klein, device=text, dtype=dtype) if text else None
    transformer.pos_embed = TableAsIds()
    for block in transformer.transformer_blocks:
        block.attn.set_processor(JointProcessor())
    for block in transformer.single_transformer_blocks:
        block.attn.set_processor(ParallelBlockProcessor())
    return Flux2Model(spec, transformer=transformer, vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """FLUX.2-dev's settings for a model that takes its guidance as an input, else klein's."""
    return "flux2-dev" if transformer.get("guidance_embeds", True) else "flux2-klein"


ARCHITECTURE = Architecture(describe, load, settings_name)
