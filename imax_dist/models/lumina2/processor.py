"""Lumina-Image-2.0's attention with the product over keys left to an engine; no state between calls.

The rotary table, the engine and the layout come with each call in the place of ``image_rotary_emb``:
``TokensAsGiven`` stands in for the transformer's ``rope_embedder`` and hands them on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from imax_dist.models.joint_attention import rotate_pairs
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import RopeTable


class Rotary(NamedTuple):
    """What one kind of block needs: its tokens' table, and how their attention is computed."""

    table: RopeTable
    engine: AttentionEngine
    layout: JointLayout
    text_weight: int = 1


class Sequences(NamedTuple):
    """Goes in as ``encoder_attention_mask``: the three sequences the transformer computes with."""

    caption: Rotary
    image: Rotary
    joint: Rotary
    own_text: int
    """Caption tokens that this rank adds to the joint sequence: the first of those it refines."""


class TokensAsGiven(nn.Module):
    """Stands in for Lumina2RotaryPosEmbed: no tables of its own, so no longest side."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, hidden_states: Tensor, sequences: Sequences) -> tuple[Any, ...]:
        batch = hidden_states.shape[0]
        cut = hidden_states.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        tokens = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        text = sequences.own_text
        lengths = [text] * batch, [text + tokens.shape[1]] * batch
        return tokens, sequences.caption, sequences.image, sequences.joint, *lengths


class Lumina2Processor:
    """In the place of diffusers' Lumina2AttnProcessor2_0."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Any = None,
        image_rotary_emb: Rotary | None = None,
    ) -> Tensor:
        del attention_mask  # captions come without padding
        assert image_rotary_emb is not None
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        key, value = (
            project(encoder_hidden_states).unflatten(-1, (-1, query.shape[-1]))
            for project in (attn.to_k, attn.to_v)
        )
        table, engine, layout, text_weight = image_rotary_emb
        query = rotate_pairs(attn.norm_q(query), table)
        key = rotate_pairs(attn.norm_k(key), table)
        output: Tensor = engine(query, key, value, layout=layout, text_weight=text_weight).flatten(2, 3)
        return attn.to_out[1](attn.to_out[0](output))  # type: ignore[no-any-return]
