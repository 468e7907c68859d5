"""FLUX.2 as an Adapter: pack, split over the ranks, run the unmodified transformer, gather, unpack.

Latents are the VAE's own 32 channels at 1/8 of the image, as FLUX.1's: what diffusers keeps as 128 channels
at 1/16 is their 2 x 2 patches. FLUX.2 normalises each of the 128 with the VAE's batch norm.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, Prompt
from imax_dist.models.base import TablesByText, TokenSequence
from imax_dist.models.flux.packing import pack, unpack
from imax_dist.models.flux.positions import ids_of
from imax_dist.models.flux2.positions import joint_position_ids
from imax_dist.models.flux2.text import encode_text
from imax_dist.shapes import Latents, PositionIds


class PatchNorm(NamedTuple):
    """Mean and deviation of each of a patch's numbers, (4 C,)."""

    mean: Tensor
    deviation: Tensor


class Flux2Model(Adapter):
    """See FlowModel; ``encoders`` are a TextEncoder."""

    def embed(self, text: str) -> Prompt:
        assert self.encoders is not None
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

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
        grid, table, states, shares = self.joint_pass(x, prompt["states"], tables=tables, sequence=sequence)
        text_ids, image_ids = shares.once_a_table("ids", table, lambda: ids_of(shares.tables(table)))
        takes_scale = scale is not None and self.transformer.config.guidance_embeds
        tokens = self.transformer(
            hidden_states=shares.image(pack(x), dim=1),
            timestep=self.per_image(sigma, x),
            guidance=self.per_image(scale, x) if takes_scale else None,  # type: ignore[arg-type]
            encoder_hidden_states=states,
            txt_ids=text_ids,
            img_ids=image_ids,
            joint_attention_kwargs=shares.attention,
            return_dict=False,
        )[0]
        return unpack(shares.gather(tokens, dim=1), grid)

    def patch_norm(self) -> PatchNorm:
        """The VAE's batch norm, which FLUX.2 applies outside the VAE."""
        norm = self.vae.bn
        return PatchNorm(norm.running_mean, torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps))

    def scaled(self, latents: Latents) -> Latents:
        norm = self.patch_norm()
        return unpack((pack(latents) - norm.mean) / norm.deviation, self.token_grid(latents))

    def unscaled(self, latents: Latents) -> Latents:
        norm = self.patch_norm()
        patches = pack(latents.to(self.vae.dtype)) * norm.deviation + norm.mean
        return unpack(patches, self.token_grid(latents))
