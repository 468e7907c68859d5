"""FLUX as a FlowModel: pack, split over the ranks, run the unmodified transformer, gather, unpack."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.geometry import LatentGrid, TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.base import Conditioning, ModelSpec, TokenSequence
from imax_dist.models.flux.packing import pack, unpack
from imax_dist.models.flux.positions import joint_position_ids, table_as_ids
from imax_dist.models.flux.text import TextEncoders, encode_text
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.shapes import Latents, Pixels, PositionIds, RopeTable


class FluxModel:
    """See FlowModel. ``encoders`` is None on ranks that never encode a prompt."""

    def __init__(self, spec: ModelSpec, *, transformer: Any, vae: Any, encoders: TextEncoders | None) -> None:
        self.spec = spec
        self.transformer = transformer
        self.vae = vae
        self.encoders = encoders
        self.dtype: torch.dtype = transformer.dtype
        self.device: torch.device = transformer.device

    def encode_prompt(self, prompt: str, *, negative: bool) -> Conditioning:
        if self.encoders is None:
            raise BadConfig("this rank was started without text encoders; rank 0 encodes the prompt")
        tensors = {}
        for name, text in {"positive": prompt, "negative": ""}.items():
            if name == "positive" or negative:
                states, pooled = encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)
                tensors[f"{name}_states"], tensors[f"{name}_pooled"] = states, pooled
        return Conditioning(tensors)

    def position_ids(self, grid: TokenGrid, copies: TextCopies) -> PositionIds:
        return joint_position_ids(grid, copies, text_tokens=self.spec.settings.text_tokens)

    def latent_grid(self, width: int, height: int) -> LatentGrid:
        factor = self.spec.vae_factor
        return LatentGrid(height=height // factor, width=width // factor)

    @torch.no_grad()
    def velocity(
        self,
        x: Latents,
        sigma: float,
        conditioning: Conditioning,
        *,
        table: RopeTable,
        sequence: TokenSequence,
        guidance_scale: float,
    ) -> Latents:
        distilled = self.spec.guidance == "distilled"
        predict = partial(self._predict, x, sigma, conditioning, table=table, sequence=sequence)
        velocity = predict(prompt="positive", scale=guidance_scale if distilled else None)
        if distilled or guidance_scale == 1.0:
            return velocity
        empty = predict(prompt="negative", scale=None)
        return empty + guidance_scale * (velocity - empty)

    def _predict(
        self,
        x: Latents,
        sigma: float,
        conditioning: Conditioning,
        *,
        table: RopeTable,
        sequence: TokenSequence,
        prompt: str,
        scale: float | None,
    ) -> Latents:
        """One pass of the network; ``scale`` is the guidance a distilled model takes as an input."""
        grid = LatentGrid(height=x.shape[2], width=x.shape[3]).tokens(self.spec.patch)
        states = conditioning.tensors[f"{prompt}_states"].repeat(1, sequence.copies.literal, 1)
        layout = JointLayout.of(
            text_tokens=states.shape[1],
            image_tokens=grid.count,
            ranks=sequence.mesh.size,
            text_replicated=sequence.text_replicated,
        )
        text_ids, image_ids = table_as_ids(table).to(x.device).split([states.shape[1], grid.count])
        tokens = self.transformer(
            hidden_states=_own(pack(x), layout.image, sequence, dim=1),
            timestep=self._scalar(sigma),
            guidance=None if scale is None else self._scalar(scale),
            encoder_hidden_states=_own_text(states, layout, sequence, dim=1),
            pooled_projections=conditioning.tensors[f"{prompt}_pooled"],
            txt_ids=_own_text(text_ids, layout, sequence, dim=0),
            img_ids=_own(image_ids, layout.image, sequence, dim=0),
            joint_attention_kwargs={
                "engine": sequence.engine,
                "layout": layout,
                "text_weight": sequence.copies.weight,
            },
            return_dict=False,
        )[0]
        return unpack(gather(tokens, layout.image, sequence.mesh, dim=1), grid)

    @torch.no_grad()
    def encode_image(self, pixels: Pixels, *, noise: Latents | None) -> Latents:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = posterior.mean
        if noise is not None:
            latents = latents + posterior.std * noise.to(latents)
        config = self.vae.config
        scaled: Tensor = (latents - config.shift_factor) * config.scaling_factor
        return scaled

    @torch.no_grad()
    def decode_image(self, latents: Latents) -> Pixels:
        config = self.vae.config
        unscaled = latents.to(self.vae.dtype) / config.scaling_factor + config.shift_factor
        pixels: Tensor = self.vae.decode(unscaled, return_dict=False)[0]
        return pixels

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor([value], dtype=self.dtype, device=self.device)


def _own(x: Tensor, lengths: tuple[int, ...], sequence: TokenSequence, *, dim: int) -> Tensor:
    return shard(x, lengths, sequence.mesh, dim=dim)


def _own_text(x: Tensor, layout: JointLayout, sequence: TokenSequence, *, dim: int) -> Tensor:
    return x if layout.text_replicated else shard(x, layout.text, sequence.mesh, dim=dim)
