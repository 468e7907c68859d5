"""Networks whose VAE makes videos, as Qwen-Image's and Krea 2's: a picture is a first frame."""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.models.base import FlowModel, LatentScale, sample_posterior
from imax_dist.shapes import Latents, Pixels


class VideoVaeModel(FlowModel):
    """With diffusers' AutoencoderKLQwenImage, which scales each latent channel by numbers of its own."""

    def latent_scale(self) -> LatentScale:
        config = self.vae.config
        mean, deviation = (
            torch.tensor(numbers, dtype=self.vae.dtype, device=self.vae.device).view(1, -1, 1, 1)
            for numbers in (config.latents_mean, config.latents_std)
        )
        return LatentScale(shift=mean, factor=1.0 / deviation)

    @torch.no_grad()
    def encode_image(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)[:, :, None]).latent_dist
        frames = sample_posterior(posterior, None if noise is None else noise[:, :, None])
        return self.scaled(frames[:, :, 0])

    @torch.no_grad()
    def decode_image(self, latents: Latents) -> Pixels:
        frames: Tensor = self.vae.decode(self.unscaled(latents)[:, :, None], return_dict=False)[0]
        return frames[:, :, 0]
