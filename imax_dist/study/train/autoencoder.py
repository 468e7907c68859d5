"""The testbed's autoencoder: FLUX's geometry (factor 8, 16 channels), sized for a CPU."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.layers import ResBlock
from imax_dist.vae.networks import network_of

CHANNELS = 16


def build_autoencoder(widths: tuple[int, ...] = (32, 64, 96, 96), *, layers: int = 1) -> AutoencoderKL:
    """A fresh AutoencoderKL: residual branches start at zero, the posterior starts narrow.

    Its layers are those of the description that a render walks and the planner counts (``vae/kl.py``).
    """
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
    network = described(model)
    with torch.no_grad():
        for layer in (*network.encoder, *network.decoder):
            if isinstance(layer, ResBlock):
                for parameter in model.get_submodule(layer.conv2.name).parameters():
                    parameter.zero_()
        posterior = model.get_submodule(network.placed("encoder")[-1].conv.name)
        posterior.weight[CHANNELS:].mul_(0.1)
        posterior.bias[CHANNELS:].fill_(-5.0)
    return model.to(memory_format=torch.channels_last)


def described(model: AutoencoderKL) -> Autoencoder:
    """The layers of a ``build_autoencoder``, which has no option that the description leaves out."""
    network = network_of(model)
    assert network is not None
    return network


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
