"""The attention of FLUX.2's single-stream blocks, which share one projection with their feed-forward part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imax_dist.models.joint_attention import attend_rotated
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import RopeTable


class ParallelBlockProcessor:
    """In the place of diffusers' Flux2ParallelSelfAttnProcessor; no state between calls."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        text_weight: int = 1,
    ) -> Tensor:
        assert attention_mask is None, "FLUX.2 attends to its text's padding, as it was trained"
        assert engine is not None
        assert layout is not None
        assert image_rotary_emb is not None
        heads, hidden = attn.to_qkv_mlp_proj(hidden_states).split(
            [3 * attn.inner_dim, attn.mlp_hidden_dim * attn.mlp_mult_factor], dim=-1
        )
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in heads.chunk(3, dim=-1))
        output = attend_rotated(
            (attn.norm_q(query), attn.norm_k(key), value),
            RopeTable(*image_rotary_emb),
            engine=engine,
            layout=layout,
            text_weight=text_weight,
        )
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(hidden)], dim=-1))  # type: ignore[no-any-return]
