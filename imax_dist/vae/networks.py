"""Which autoencoders are known layer by layer: from a config.json alone, or from a loaded VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.hunyuan_image import hunyuan_image
from imax_dist.vae.kl import autoencoder_kl
from imax_dist.vae.qwen_image import qwen_image
from imax_dist.vae.qwen_image21 import qwen_image21

NETWORKS: dict[str, Callable[[Mapping[str, Any]], Autoencoder | None]] = {
    "AutoencoderKL": autoencoder_kl,
    "AutoencoderKLFlux2": autoencoder_kl,
    "AutoencoderKLHunyuanImage": hunyuan_image,
    "AutoencoderKLQwenImage": qwen_image,
    "AutoencoderKLQwenImage21": qwen_image21,
}
"""By diffusers' class; each gives None for options that it does not describe."""


def describe(config: Mapping[str, Any]) -> Autoencoder | None:
    """The layers of the VAE that ``config`` (its config.json) makes; None for one that is not known."""
    make = NETWORKS.get(str(config.get("_class_name", "AutoencoderKL")))
    return None if make is None else make(config)


def network_of(vae: Any) -> Autoencoder | None:
    """The layers of a loaded VAE, if they give what ``vae`` itself would: its class, weights and options."""
    kind = type(vae)
    if not kind.__module__.startswith("diffusers.") or kind.__name__ not in NETWORKS:
        return None
    network = describe({**vae.config, "_class_name": kind.__name__})
    shapes = {name: tuple(parameter.shape) for name, parameter in vae.named_parameters()}
    return network if network and shapes == network.parameters and _has_plain_parts(vae) else None


def _has_plain_parts(vae: Any) -> bool:
    """Whether no module has an option that the config does not say."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import Downsample2D, ResnetBlock2D

    checks: dict[type, Callable[[Any], bool]] = {
        ResnetBlock2D: _plain_resnet,
        Attention: _plain_attention,
        Downsample2D: lambda part: part.padding == 0,
    }
    parts = list(vae.modules())
    return all(check(part) for kind, check in checks.items() for part in parts if isinstance(part, kind))


def _plain_resnet(block: Any) -> bool:
    extras = (block.time_emb_proj, block.upsample, block.downsample)
    plain = block.time_embedding_norm in ("default", "group") and block.output_scale_factor == 1
    return plain and all(extra is None for extra in extras)


def _plain_attention(block: Any) -> bool:
    extras = (block.spatial_norm, block.norm_q, block.norm_k, block.norm_cross)
    plain = block.residual_connection and block.group_norm is not None
    single = block.heads == 1 and block.rescale_output_factor == 1
    return plain and single and not any(extras)
