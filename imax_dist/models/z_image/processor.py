"""Z-Image's attention with the product over keys left to an engine; no state between calls.

ZImageTransformerBlock passes its ``freqs_cis`` on to the processor as it is, so that argument carries the
whole call: rotary table, engine and layout.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from imax_dist.models.joint_attention import attend_rotated, image_heads
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import RopeTable


class AttentionCall(NamedTuple):
    """How one stack of blocks attends: the own tokens' table, and who computes the rest."""

    table: RopeTable
    engine: AttentionEngine
    layout: JointLayout
    text_weight: int = 1


class CallProcessor:
    """In the place of diffusers' ZSingleStreamAttnProcessor."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: AttentionCall | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None, "text and image are one sequence"
        assert attention_mask is None, "one picture a pass needs no mask"
        assert freqs_cis is not None
        output = attend_rotated(
            image_heads(attn, hidden_states),
            freqs_cis.table,
            engine=freqs_cis.engine,
            layout=freqs_cis.layout,
            text_weight=freqs_cis.text_weight,
        )
        for project in attn.to_out:
            output = project(output)
        return output
