"""Load a Qwen-Image pipeline folder: diffusers' transformer and VAE, transformers' Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.errors import BadValue
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import ModelSettings, ModelSpec
from imax_dist.models.components import check_packed, load_components, read_configs
from imax_dist.models.joint_attention import JointProcessor
from imax_dist.models.precise import precise_norms
from imax_dist.models.qwen_image.adapter import QwenImageModel
from imax_dist.models.qwen_image.positions import TableAsShapes
from imax_dist.models.qwen_image.text import load_text_encoder
from imax_dist.models.weights import weights_hash

ROPE_THETA = 10_000.0
"""Fixed in QwenImageTransformer2DModel; no configuration key holds it."""
PATCH = 2
AXES = (16, 56, 56)
"""QwenImageTransformer2DModel's own default, for configurations without the key."""
OTHER_MODELS = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds")
"""Keys of its relatives: picture editing, layers, a distilled scale that was never released."""


def describe(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """Read the facts from the config files. Raises MissingInput, BadConfig or BadValue if they do not fit."""
    transformer, vae = read_configs(settings, folder)
    for key in OTHER_MODELS:
        if transformer.get(key):
            raise BadValue(
                f"model {name}: its transformer has {key} set, which text-to-image Qwen-Image has not; "
                "use Qwen/Qwen-Image or a fine-tune of it"
            )
    spec = _spec(name, settings, transformer=transformer, vae=vae, weights=weights_hash(folder))
    check_packed(spec, int(transformer["in_channels"]))
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
        latent_channels=int(vae["z_dim"]),
        vae_factor=2 ** len(vae["temperal_downsample"]),
        patch=PATCH,
        guidance="classifier_free",
    )


def load(
    spec: ModelSpec, folder: Path, *, device: torch.device, dtype: torch.dtype, text: torch.device | None
) -> QwenImageModel:
    """Transformer, VAE and, with ``text``, the text encoder."""
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel

    kinds = QwenImageTransformer2DModel, AutoencoderKLQwenImage
    transformer, vae = load_components(kinds, spec, folder, device=device, dtype=dtype)
    encoders = load_text_encoder(folder, device=text, dtype=dtype) if text else None
    transformer.pos_embed = TableAsShapes()
    for block in transformer.transformer_blocks:
        block.attn.set_processor(JointProcessor())
    return QwenImageModel(spec, transformer=precise_norms(transformer), vae=vae, encoders=encoders)


def settings_name(transformer: Mapping[str, Any]) -> str:
    """One size was released."""
    del transformer
    return "qwen-image"


ARCHITECTURE = Architecture(describe, load, settings_name)
