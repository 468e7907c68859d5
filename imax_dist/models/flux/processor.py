"""FLUX's attention with the product over keys left to an engine; no state between calls.

The engine and the layout of the tokens come with each call through ``joint_attention_kwargs``. The
rotation is done in the queries' own precision (at least float32): diffusers rounds it to float32, which
would hide the float64 proof that parallel equals serial (DECISIONS 7).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import RopeTable


class EngineProcessor:
    """In the place of diffusers' FluxAttnProcessor."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        text_weight: int = 1,
    ) -> Tensor | tuple[Tensor, Tensor]:
        del attention_mask  # FLUX has none
        assert engine is not None
        assert layout is not None
        assert image_rotary_emb is not None
        query, key, value = image_heads(attn, hidden_states)
        text = 0
        if encoder_hidden_states is not None:
            text = encoder_hidden_states.shape[1]
            joined = zip(text_heads(attn, encoder_hidden_states), (query, key, value), strict=True)
            query, key, value = (torch.cat(pair, dim=1) for pair in joined)
        table = RopeTable(*image_rotary_emb)
        query, key = rotate_pairs(query, table), rotate_pairs(key, table)
        output = engine(query, key, value, layout=layout, text_weight=text_weight).flatten(2, 3)
        if encoder_hidden_states is None:
            return output
        image_output = attn.to_out[1](attn.to_out[0](output[:, text:].contiguous()))
        return image_output, attn.to_add_out(output[:, :text].contiguous())


def image_heads(attn: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised query and key, and value, (B, S, H, D)."""
    query, key, value = (
        projection(states).unflatten(-1, (-1, attn.head_dim))
        for projection in (attn.to_q, attn.to_k, attn.to_v)
    )
    return attn.norm_q(query), attn.norm_k(key), value


def text_heads(attn: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for the text tokens of a double-stream block."""
    query, key, value = (
        projection(states).unflatten(-1, (-1, attn.head_dim))
        for projection in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    )
    return attn.norm_added_q(query), attn.norm_added_k(key), value


def rotate_pairs(x: Tensor, table: RopeTable) -> Tensor:
    """Rotate neighbouring channels of (B, S, H, D) by the table's (S, D) angles."""
    cos, sin = (part[None, :, None, :] for part in table)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(-2)
    precision = torch.promote_types(x.dtype, torch.float32)
    return (x.to(precision) * cos + turned.to(precision) * sin).to(x.dtype)
