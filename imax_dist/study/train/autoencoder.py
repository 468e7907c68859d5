"""The testbed's autoencoder: FLUX's geometry (factor 8, 16 channels), sized for a CPU."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

CHANNELS = 16


def build_autoencoder(widths: tuple[int, ...] = (32, 64, 96, 96), *, layers: int = 1) -> AutoencoderKL:
    """A fresh AutoencoderKL: residual branches start at zero, the posterior starts narrow."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=layers,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    for module in model.modules():
        if type(module).__name__ == "ResnetBlock2D":
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    with torch.no_grad():
        model.encoder.conv_out.weight[CHANNELS:].mul_(0.1)
        model.encoder.conv_out.bias[CHANNELS:].fill_(-5.0)
    return model.to(memory_format=torch.channels_last)


def encode_mean(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Posterior means (B, 16, H/8, W/8) of images (B, 3, H, W) in -1..1, not scaled."""
    mean: torch.Tensor = model.encode(images).latent_dist.mode()
    return mean


def decode(model: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) in -1..1 of unscaled latents."""
    images: torch.Tensor = model.decode(latents).sample
    return images.clamp(-1, 1)


def psnr(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, (B,); images in -1..1."""
    return -10 * torch.log10((images - truth).square().mean((1, 2, 3)) / 4)


@torch.no_grad()
def round_trip_psnr(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of decode(encode(x)), one number an image."""
    return torch.cat([psnr(decode(model, encode_mean(model, x)), x) for x in images.split(8)])


@torch.no_grad()
def scale_error(model: AutoencoderKL, images: torch.Tensor) -> float:
    """|encode(down x) - down(encode x)|^2 over the latent variance: 0 is scale-equivariant."""
    pool = torch.nn.functional.avg_pool2d
    latents = encode_mean(model, images)
    small = encode_mean(model, pool(images, 2))
    return float((pool(latents, 2) - small).square().mean() / latents.var())
