"""The second attention of Stable Diffusion 3.5's first blocks: the image to itself, without the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imax_dist.models.joint_attention import attend_rotated, image_heads
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import RopeTable


class ImageProcessor:
    """In the place of diffusers' JointAttnProcessor2_0 where it gets no text; no state between calls."""

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
    ) -> Tensor:
        del text_weight  # no text here
        assert encoder_hidden_states is None
        assert attention_mask is None
        assert engine is not None
        assert layout is not None
        assert image_rotary_emb is not None
        own = hidden_states.shape[1]
        table = RopeTable(*(part[part.shape[0] - own :] for part in image_rotary_emb))
        heads = image_heads(attn, hidden_states)
        output = attend_rotated(heads, table, engine=engine, layout=layout.without_text())
        result: torch.Tensor = attn.to_out[1](attn.to_out[0](output))
        return result
