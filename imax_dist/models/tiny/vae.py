"""A tiny AutoencoderKL of the real class: 8 image pixels a latent pixel."""

from __future__ import annotations

from typing import Any

from imax_dist.models.tiny.parts import peaked


def tiny_autoencoder(channels: int, *, shift: float | None = None, factor: float = 0.8) -> Any:
    """Random weights; ``channels`` latent channels, ``shift`` and ``factor`` their scaling."""
    from diffusers import AutoencoderKL

    blocks = 4
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        shift_factor=shift,
        scaling_factor=factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return peaked(vae, seed=2, deviation=1.0)
