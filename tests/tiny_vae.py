"""A small random AutoencoderKL with peaked weights: nearly uniform attention would hide what is wrong."""

from __future__ import annotations

from typing import Any

import torch


def make_tiny_vae(*, attention: bool, dtype: torch.dtype, quant: bool = True) -> Any:
    """4 latent channels, 4 image pixels per latent pixel, two resnets a block."""
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
    generator = torch.Generator().manual_seed(1)
    for parameter in vae.parameters():
        fan = parameter[0].numel()
        mean, deviation = (0.0, 1.5 / fan**0.5) if parameter.ndim > 1 else (0.5, 0.5)
        parameter.data.normal_(mean, deviation, generator=generator)
    return vae.to(dtype).eval()
