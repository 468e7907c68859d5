"""Stable Diffusion 3 as an Adapter: embed, split over the ranks, run the unmodified transformer, gather."""

from __future__ import annotations

from typing import Any

import torch

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, Prompt
from imax_dist.models.base import ModelSpec, TablesByText, TokenSequence
from imax_dist.models.sd3.text import encode_text
from imax_dist.models.sd3.tokens import as_row, image_of, patches_of
from imax_dist.shapes import Latents, PositionIds


class SD3Model(Adapter):
    """See FlowModel; ``encoders`` are a TextEncoders, ``embedder`` the transformer's own patch embedding."""

    def __init__(self, spec: ModelSpec, *, transformer: Any, embedder: Any, vae: Any, encoders: Any) -> None:
        super().__init__(spec, transformer=transformer, vae=vae, encoders=encoders)
        self.embedder = embedder

    def embed(self, text: str) -> Prompt:
        states, pooled = encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)
        return {"states": states, "pooled": pooled}

    def position_ids(self, grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
        """Zeros: the table turns nothing, and only carries the proportional attention's factor."""
        return torch.zeros(copies.literal * text_tokens + grid.count, 1, dtype=torch.float64)

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
        del scale  # classifier-free: the scale is no input
        grid, table, states, shares = self.joint_pass(x, prompt["states"], tables=tables, sequence=sequence)
        precision = torch.promote_types(self.dtype, torch.float32)
        row = self.transformer(
            hidden_states=as_row(shares.image(self.embedder(x), dim=1)),
            timestep=torch.full((x.shape[0],), 1000.0 * sigma, dtype=precision, device=self.device),
            encoder_hidden_states=states,
            pooled_projections=prompt["pooled"],
            joint_attention_kwargs={
                "image_rotary_emb": shares.joint_table(table),
                **shares.attention,
            },
            return_dict=False,
        )[0]
        return image_of(shares.gather(patches_of(row), dim=1), grid)
