"""Small random autoencoders with peaked weights: nearly uniform attention would hide what is wrong.

All have 4 latent channels and 4 image pixels per latent pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def make_tiny_vae(*, attention: bool, dtype: torch.dtype, quant: bool = True) -> Any:
    """An AutoencoderKL with two resnets a block."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        mid_block_add_attention=attention,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )
    return peaked(vae, dtype)


def tiny_flux2_vae(dtype: torch.dtype) -> Any:
    """FLUX.2's, with a wider decoder than encoder, as its small decoder's file has it the other way round."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 16, 16),
        decoder_block_out_channels=(4, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
    )
    return peaked(vae, dtype)


def tiny_qwen_vae(dtype: torch.dtype) -> Any:
    """Qwen-Image's, which makes videos: pictures are (B, C, 1, H, W).

    Its upsampling rounds to float32 whatever the dtype; that is taken out, to compare in float64.
    """
    from diffusers import AutoencoderKLQwenImage

    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True]
    )
    for module in vae.modules():
        if isinstance(module, torch.nn.Upsample):
            module.__class__ = torch.nn.Upsample
    return peaked(vae, dtype)


def tiny_qwen21_vae(dtype: torch.dtype) -> Any:
    """Qwen-Image 2.1's, whose pictures have opacity; its upsampling likewise."""
    from diffusers import AutoencoderKLQwenImage21

    vae = AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1,
        temperal_downsample=[False, True], scale_factor_spatial=4,
    )  # fmt: skip
    for module in vae.modules():
        if isinstance(module, torch.nn.Upsample):
            module.__class__ = torch.nn.Upsample
    return peaked(vae, dtype)


def tiny_hunyuan_vae(dtype: torch.dtype) -> Any:
    """HunyuanImage 2.1's: pixel shuffles, one of them between widths of their own."""
    from diffusers import AutoencoderKLHunyuanImage

    vae = AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32, 64), layers_per_block=1,
        spatial_compression_ratio=4, sample_size=32, scaling_factor=0.8,
    )  # fmt: skip
    return peaked(vae, dtype)


def tiny_kl_vae(dtype: torch.dtype) -> Any:
    """With all options on."""
    return make_tiny_vae(attention=True, dtype=dtype)


TINY_VAES: dict[str, Callable[[torch.dtype], Any]] = {
    "AutoencoderKL": tiny_kl_vae,
    "AutoencoderKLFlux2": tiny_flux2_vae,
    "AutoencoderKLHunyuanImage": tiny_hunyuan_vae,
    "AutoencoderKLQwenImage": tiny_qwen_vae,
    "AutoencoderKLQwenImage21": tiny_qwen21_vae,
}


def left_over(vae: Any) -> tuple[int, int]:
    """Rows and columns beyond whole latent pixels that its encoder takes; pixel shuffles take none."""
    whole = any(name in type(vae).__name__ for name in ("Hunyuan", "21"))
    return (0, 0) if whole else (3, 1)


def plain_decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """(1, 4, h, w) -> (1, 3, 4 h, 4 w) by the VAE's own forward."""
    if "Qwen" in type(vae).__name__:
        return vae.decode(latents[:, :, None]).sample[:, :3, 0]
    return vae.decode(latents).sample


def plain_encode(vae: Any, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Its posterior's mean + deviation x ``noise``."""
    if "Qwen" in type(vae).__name__:
        if "21" in type(vae).__name__:
            pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        posterior = vae.encode(pixels[:, :, None]).latent_dist
        return (posterior.mean + posterior.std * noise[:, :, None])[:, :, 0]
    posterior = vae.encode(pixels).latent_dist
    return posterior.mean + posterior.std * noise


def peaked(vae: Any, dtype: torch.dtype) -> Any:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in vae.named_parameters():
        fan = parameter[0].numel()
        norm = parameter.ndim == 1 or name.endswith("gamma")
        mean, deviation = (0.5, 0.5) if norm else (0.0, 1.5 / fan**0.5)
        parameter.data.normal_(mean, deviation, generator=generator)
    return vae.to(dtype).eval()
