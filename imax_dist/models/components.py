"""The components every diffusers pipeline folder has: what their configs say, transformer and VAE loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from imax_dist.errors import BadConfig
from imax_dist.models.quantised import load_transformer
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.weights import (
    component_config,
    guider_configs,
    is_gguf,
    load_complete,
    pipeline_index,
    require_text,
)

TEXT = ("text_encoder",)
TOKENIZER = ("tokenizer",)


class Configs(NamedTuple):
    """What a pipeline's config files say."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    pipeline: dict[str, Any]
    """model_index.json."""
    text: dict[str, Any]
    """Of the first text encoder."""
    guiders: Mapping[str, dict[str, Any]] = MappingProxyType({})
    """guider_config.json of the pipeline's own ways of guidance, by component, where it has some."""


class Components(NamedTuple):
    """Both networks on their device, for inference."""

    transformer: Any
    vae: Any


def read_configs(
    settings: ModelSettings,
    folder: Path,
    *,
    encoders: Sequence[str] = TEXT,
    tokenizers: Sequence[str] = TOKENIZER,
) -> Configs:
    """Raises MissingInput naming a config, weights or a tokenizer that the folder lacks.

    A transformer whose weights come from a .gguf file needs only its config here.
    """
    transformer = component_config(folder, "transformer", weights=not is_gguf(settings.quantize))
    vae = component_config(folder, "vae")
    require_text(folder, encoders=encoders, tokenizers=tokenizers)
    text = component_config(folder, encoders[0])
    return Configs(transformer, vae, pipeline_index(folder), text, guider_configs(folder))


def vae_factor(vae: dict[str, Any]) -> int:
    """Image pixels per latent pixel of an AutoencoderKL: each level but the last halves the sides."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


PACKED_PATCH = 2
"""Latent pixels along a side of a token that ``patches.pack`` makes."""


def packed_spec(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """Of a transformer that takes packed tokens, with classifier-free guidance.

    Its keys are those that FLUX.1's and all later transformers of this kind share. Raises BadConfig unless a
    token is a patch of the VAE's latents.
    """
    transformer, vae = configs.transformer, configs.vae
    is_video = "z_dim" in vae
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer["axes_dims_rope"]),
        rope_theta=float(transformer["rope_theta"]),
        latent_channels=int(vae["z_dim"] if is_video else vae["latent_channels"]),
        vae_factor=2 ** len(vae["temperal_downsample"]) if is_video else vae_factor(vae),
        patch=PACKED_PATCH,
        guidance="classifier_free",
    )
    channels, patches = int(transformer["in_channels"]), spec.latent_channels * spec.patch**2
    if channels != patches:
        raise BadConfig(
            f"model {spec.name}: the transformer takes {channels} channels, but {spec.patch} x {spec.patch} "
            f"patches of the VAE's {spec.latent_channels} channels make {patches}"
        )
    return spec


def check_patches(spec: ModelSpec, *, channels: int, vae_channels: int, patches: Sequence[int]) -> None:
    """Raise BadConfig unless a transformer that cuts patches itself fits the VAE and our tokens."""
    if channels != vae_channels or spec.patch not in patches:
        raise BadConfig(
            f"model {spec.name}: the transformer takes {channels} channels in patches of {list(patches)}, "
            f"but the VAE has {vae_channels} channels and a token is {spec.patch} x {spec.patch} of them"
        )


def load_components(
    kinds: tuple[Any, Any], spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype
) -> Components:
    """``kinds``: diffusers' classes of transformer and VAE."""
    transformer = load_transformer(kinds[0], spec, folder, dtype=dtype)
    vae = load_complete(kinds[1], folder / "vae", torch_dtype=dtype)
    return Components(transformer.to(device).eval(), vae.to(device).eval())
