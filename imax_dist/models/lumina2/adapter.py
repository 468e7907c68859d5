"""Lumina-Image-2.0 as an Adapter: a rank's patches as one row of an image, its share of caption in front."""

from __future__ import annotations

from typing import NamedTuple

import torch

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, Prompt
from imax_dist.models.base import TablesByText, TokenSequence
from imax_dist.models.gemma import encode_caption
from imax_dist.models.guidance import norm_preserving
from imax_dist.models.lumina2.positions import joint_position_ids
from imax_dist.models.lumina2.processor import Rotary, Sequences
from imax_dist.models.patch_row import own_row, whole_image
from imax_dist.models.shares import Shares
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Latents, PositionIds, RopeTable, Tokens

SYSTEM_PROMPT = (
    "You are an assistant designed to generate superior images with the superior degree of image-text "
    "alignment based on textual prompts or user prompts."
)
"""Lumina2Pipeline's own."""


class Caption(NamedTuple):
    """The caption's tokens as this rank refines them: all copies, its own share of them first."""

    states: Tokens
    table: RopeTable


class Lumina2Model(Adapter):
    """See FlowModel; ``encoders`` are a Reader of Gemma (2)."""

    combine = staticmethod(norm_preserving(3))  # Lumina2Pipeline's cfg_normalization: along each row

    def embed(self, text: str) -> Prompt:
        """The system prompt goes before every prompt but the empty one, as in Lumina2Pipeline."""
        caption = f"{SYSTEM_PROMPT} <Prompt Start> {text}" if text else ""
        tokens = self.spec.settings.text_tokens
        states = encode_caption(
            self.encoders, caption, tokens=tokens, padding="max_length", padding_side="right"
        )
        return {"states": states}

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
        del scale  # there is no guidance input
        patch, states = self.spec.patch, prompt["states"]
        grid = self.token_grid(x)
        table = tables(states.shape[1])
        shares = Shares.joint(sequence, states, image_tokens=grid.count)
        caption = sequence.once(
            ("caption", grid, id(states)), (states, table), lambda: self._caption(states, table, shares)
        )
        row = self.transformer(
            hidden_states=own_row(x, shares, patch=patch),
            timestep=self.per_image(1.0 - sigma, x),  # Lumina's time runs from noise to image
            encoder_hidden_states=caption.states,
            encoder_attention_mask=self._sequences(caption, table, shares),
            return_dict=False,
        )[0]
        return -whole_image(row, grid, shares, patch=patch)

    def _caption(self, states: Tokens, table: RopeTable, shares: Shares) -> Caption:
        """Every rank refines the whole caption, which is short; the copies are those of one refined caption.

        Its length is as trained, so the table's attention factor is taken out again.
        """
        tokens, copies = states.shape[1], shares.sequence.copies.literal
        norm = torch.hypot(table.cos[0, 0], table.sin[0, 0])
        start = 0 if shares.layout.text_replicated else sum(shares.layout.text[: shares.sequence.mesh.rank])
        own = RopeTable(*((part[:tokens] / norm).repeat(copies, 1).roll(-start, 0) for part in table))
        return Caption(states.repeat(1, copies, 1).roll(-start, 1), own)

    def _sequences(self, caption: Caption, table: RopeTable, shares: Shares) -> Sequences:
        sequence, layout = shares.sequence, shares.layout
        alone = JointLayout(text=(caption.states.shape[1],), image=(0,))
        image_only = JointLayout(text=(0,) * len(layout.image), image=layout.image)
        return Sequences(
            caption=Rotary(caption.table, self.engine_alone(), alone),
            image=Rotary(shares.tables(table)[1], sequence.engine, image_only),
            joint=Rotary(shares.joint_table(table), sequence.engine, layout, sequence.copies.weight),
            own_text=layout.text[sequence.mesh.rank],
        )
