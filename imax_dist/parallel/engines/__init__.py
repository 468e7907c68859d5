"""Exact global attention over sharded tokens; each engine is one way to compute it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads, KeyHeads


@runtime_checkable
class AttentionEngine(Protocol):
    """Local queries, keys and values in, this rank's rows of the global attention out."""

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        """(B, own text + own image tokens, H, D) -> the same shape, scale 1 / sqrt(D).

        Keys and values may have fewer heads, H_kv with H % H_kv == 0: query head h attends to key head
        h // (H / H_kv) (grouped-query attention). They travel as they are; where the Ulysses degree does
        not divide H_kv, each is repeated to lcm(H_kv, ulysses) heads first.
        ``text_weight`` n lets every text key count n times (shared text copies).
        """
        ...


def begun(
    engine: AttentionEngine,
    query: Heads,
    key: KeyHeads,
    value: KeyHeads,
    *,
    layout: JointLayout,
    text_weight: int = 1,
) -> Callable[[], Heads]:
    """Begin an attention whose result is asked for later: what is computed until then hides its exchange.

    An engine that has no ``begin`` computes all of it when asked. The bits are those of the engine's call.
    """
    begin: Callable[..., Callable[[], Heads]] = getattr(engine, "begin", partial(partial, engine))
    return begin(query, key, value, layout=layout, text_weight=text_weight)


class Marking:
    """An engine whose every call is marked as a block of the network."""

    def __init__(self, engine: AttentionEngine, marks: Marks) -> None:
        self.engine = engine
        self.marks = marks

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        self.marks.block()
        return self.engine(query, key, value, layout=layout, text_weight=text_weight)

    def begin(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Callable[[], Heads]:
        """See ``begun``."""
        self.marks.block()
        return begun(self.engine, query, key, value, layout=layout, text_weight=text_weight)


def marking(engine: AttentionEngine, marks: Marks) -> AttentionEngine:
    """The engine with its calls marked, if anybody looks at the marks."""
    return engine if marks is SILENT else Marking(engine, marks)
