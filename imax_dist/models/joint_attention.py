"""Attention over text and image together with the product over keys left to an engine; no state.

One processor for every diffusers attention that projects image tokens with ``to_q`` and text tokens with
``add_q_proj``: FLUX.1, FLUX.2, Qwen-Image, SD3.5. Engine and layout (and, where the transformer does not pass
it on, the rotary table) come with each call through its ``attention_kwargs``. The rotation is done in the
queries' own precision, at least float32: diffusers rounds it to float32, which would hide the float64 proof
that parallel equals serial (DECISIONS 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imax_dist.models.token_shards import TokenShards
from imax_dist.parallel.engines import AttentionEngine, begun
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads, RopeTable


class AttentionCall(NamedTuple):
    """How a sequence of tokens attends to itself: the own tokens' table, and who computes the rest."""

    table: RopeTable
    engine: AttentionEngine
    layout: JointLayout
    text_weight: int = 1

    @classmethod
    def joint(cls, shares: TokenShards, table: RopeTable) -> AttentionCall:
        """Of text and image, with the whole sequence's ``table``."""
        sequence = shares.sequence
        return cls(shares.joint_table(table), sequence.engine, shares.layout, sequence.copies.weight)

    @classmethod
    def image_only(cls, shares: TokenShards, table: RopeTable) -> AttentionCall:
        """Of the image to itself."""
        return cls(shares.tables(table)[1], shares.sequence.engine, shares.layout.without_text())


class TableAsIds(nn.Module):
    """Stands in for FluxPosEmbed: (tokens, 2 head_dim) -> cos, sin, each (tokens, head_dim)."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = ids.chunk(2, dim=-1)
        return cos, sin


def table_as_ids(table: RopeTable) -> Tensor:
    """The table in the form ``TableAsIds`` takes."""
    return torch.cat([table.cos, table.sin], dim=-1)


def ids_of(tables: tuple[RopeTable, RopeTable]) -> tuple[Tensor, Tensor]:
    """``txt_ids`` and ``img_ids`` of a rank's tables (text, image)."""
    text, image = tables
    return table_as_ids(text), table_as_ids(image)


class JointProcessor:
    """In the place of diffusers' processor; a rank's sequence is its text, then its image tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        encoder_hidden_states_mask: Tensor | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        text_weight: int = 1,
    ) -> Tensor | tuple[Tensor, Tensor]:
        assert attention_mask is None, "text is cut to its length, never masked"
        assert encoder_hidden_states_mask is None, "text is cut to its length, never masked"
        assert engine is not None
        assert layout is not None
        assert image_rotary_emb is not None
        heads = image_heads(attn, hidden_states)
        text = 0
        if encoder_hidden_states is not None:
            text = encoder_hidden_states.shape[1]
            pairs = zip(text_heads(attn, encoder_hidden_states), heads, strict=True)
            heads = tuple(torch.cat(pair, dim=1) for pair in pairs)  # type: ignore[assignment]
        output = attend(heads, AttentionCall(RopeTable(*image_rotary_emb), engine, layout, text_weight))
        if getattr(attn, "pre_only", False):
            return output  # FLUX.1's single-stream blocks project it themselves
        image_output = attn.to_out[1](attn.to_out[0](output[:, text:].contiguous()))
        if encoder_hidden_states is None:
            return image_output  # type: ignore[no-any-return]
        text_output = output[:, :text].contiguous()
        last = getattr(attn, "context_pre_only", None)
        return image_output, text_output if last else attn.to_add_out(text_output)


def attend(heads: tuple[Heads, Heads, Heads], call: AttentionCall) -> Tensor:
    """Queries and keys rotated by the table, global attention by the engine: (B, own tokens, H D)."""
    return begin_attention(heads, call)()


def begin_attention(heads: tuple[Heads, Heads, Heads], call: AttentionCall) -> Callable[[], Tensor]:
    """The same, its result asked for later: the exchange of heads travels meanwhile."""
    query, key, value = heads
    query, key = rotate_pairs(query, call.table), rotate_pairs(key, call.table)
    layout, weight = call.layout, call.text_weight
    if torch.compiler.is_compiling():  # compiled graphs end at the engine, which is called in one go
        return lambda: call.engine(query, key, value, layout=layout, text_weight=weight).flatten(2, 3)
    finish = begun(call.engine, query, key, value, layout=layout, text_weight=weight)
    return lambda: finish().flatten(2, 3)


def image_heads(attn: Any, states: Tensor) -> tuple[Heads, Heads, Heads]:
    """Normalised query and key, and value, (B, S, H, D)."""
    query, key, value = (_heads(attn, project(states)) for project in (attn.to_q, attn.to_k, attn.to_v))
    return _normed(attn.norm_q, query), _normed(attn.norm_k, key), value


def text_heads(attn: Any, states: Tensor) -> tuple[Heads, Heads, Heads]:
    """The same for the text tokens of a double-stream block."""
    query, key, value = (
        _heads(attn, project(states)) for project in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    )
    return _normed(attn.norm_added_q, query), _normed(attn.norm_added_k, key), value


def _heads(attn: Any, states: Tensor) -> Heads:
    heads: Tensor = states.unflatten(-1, (-1, attn.inner_dim // attn.heads))
    return heads


def _normed(norm: Any, states: Heads) -> Heads:
    return states if norm is None else norm(states)  # type: ignore[no-any-return]


def rotate_pairs(x: Tensor, table: RopeTable) -> Tensor:
    """Rotate neighbouring channels of (B, S, H, D) by the table's (S, D) angles.

    One product of complex numbers: on a CPU the bits of ``_rotated_by_parts``, with a third of its traffic.
    """
    if torch.compiler.is_compiling():  # which fuses the parts and cannot fuse complex numbers
        return _rotated_by_parts(x, table)
    cos, sin = (part[None, :, None, ::2] for part in table)
    precision = torch.promote_types(x.dtype, torch.float32)
    pairs = torch.view_as_complex(x.to(precision).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2).to(x.dtype)


def _rotated_by_parts(x: Tensor, table: RopeTable) -> Tensor:
    """The same written out."""
    cos, sin = (part[None, :, None, :] for part in table)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(-2)
    precision = torch.promote_types(x.dtype, torch.float32)
    return (x.to(precision) * cos + turned.to(precision) * sin).to(x.dtype)
