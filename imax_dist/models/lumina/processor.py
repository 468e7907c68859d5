"""Lumina-Next's two attentions: the image to itself through an engine, the image to the caption on each rank.

Every rank holds the whole caption, so that cross-attention needs no communication. It keeps its scale: the
factor that proportional attention put into the table is taken out of the queries again (Sec. 2.3, item 3).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.models.joint_attention import rotate_pairs
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import RopeTable


class LuminaProcessor:
    """In the place of diffusers' LuminaAttnProcessor2_0; stateless."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        query_rotary_emb: Tensor | None = None,
        key_rotary_emb: Tensor | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        table_norm: float = 1.0,
    ) -> Tensor:
        assert engine is not None
        assert layout is not None
        assert query_rotary_emb is not None
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(-1, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(-1, (-1, query.shape[-1]))
        value = attn.to_v(encoder_hidden_states).unflatten(-1, (-1, query.shape[-1]))
        table = RopeTable(*query_rotary_emb[0].chunk(2, dim=-1))
        query = rotate_pairs(query, table)
        if key_rotary_emb is not None:
            return engine(query, rotate_pairs(key, table), value, layout=layout)
        return _to_caption(query / table_norm, key, value, attention_mask)


def _to_caption(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    shown = None if mask is None else mask.bool()[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=shown, enable_gqa=True).transpose(1, 2)
