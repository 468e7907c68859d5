"""Exact global attention over sharded tokens; each engine is one way to compute it."""

from __future__ import annotations

from typing import Protocol

from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads


class AttentionEngine(Protocol):
    """Local queries, keys and values in, this rank's rows of the global attention out."""

    def __call__(
        self, query: Heads, key: Heads, value: Heads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        """(B, own text + own image tokens, H, D) -> the same shape, scale 1 / sqrt(D).

        ``text_weight`` n lets every text key count n times (shared text copies).
        """
        ...
