"""Qwen-Image as an Adapter: pack, split over the ranks, run the unmodified transformer, gather, unpack."""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.geometry import LatentGrid, TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, LatentScale, Prompt, drawn
from imax_dist.models.base import TablesByText, TokenSequence
from imax_dist.models.flux.packing import pack, unpack
from imax_dist.models.guidance import classifier_free
from imax_dist.models.qwen_image.positions import joint_position_ids
from imax_dist.models.qwen_image.text import encode_text
from imax_dist.shapes import Latents, Pixels, PositionIds

NO_PROMPT = " "
"""What the model's card gives for an empty prompt."""


def token_norm_preserving(positive: Latents, negative: Latents, scale: float) -> Latents:
    """Guidance, each token scaled back to its norm with the prompt: QwenImagePipeline's true CFG."""
    grid = LatentGrid(height=positive.shape[2], width=positive.shape[3]).tokens(2)
    guided = pack(classifier_free(positive, negative, scale))
    norms = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (pack(positive), guided))
    return unpack(guided * (next(norms) / next(norms)), grid)


class QwenImageModel(Adapter):
    """See FlowModel; ``encoders`` are a Reader. Its VAE makes videos; a picture is a first frame."""

    combine = staticmethod(token_norm_preserving)

    def embed(self, text: str) -> Prompt:
        assert self.encoders is not None
        tokens = self.spec.settings.text_tokens
        return {"states": encode_text(self.encoders, text or NO_PROMPT, tokens=tokens)}

    def position_ids(self, grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
        return joint_position_ids(grid, copies, text_tokens=text_tokens)

    def predict(
        self,
        x: Latents,
        sigma: float,
        prompt: Prompt,
        *,
        tables: TablesByText,
        sequence: TokenSequence,
        scale: float | None,
    ) -> Latents:
        del scale  # no published Qwen-Image takes its guidance scale as an input
        grid, table, states, shares = self.joint_pass(x, prompt["states"], tables=tables, sequence=sequence)
        tokens = self.transformer(
            hidden_states=shares.image(pack(x), dim=1),
            timestep=self.per_image(sigma, x),
            encoder_hidden_states=states,
            img_shapes=shares.joint_table(table),
            attention_kwargs=shares.attention,
            return_dict=False,
        )[0]
        return unpack(shares.gather(tokens, dim=1), grid)

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
        frames = drawn(posterior, None if noise is None else noise[:, :, None])
        return self.scaled(frames[:, :, 0])

    @torch.no_grad()
    def decode_image(self, latents: Latents) -> Pixels:
        frames: Tensor = self.vae.decode(self.unscaled(latents)[:, :, None], return_dict=False)[0]
        return frames[:, :, 0]
