"""Faults put into a real ring of two gloo ranks: the parity of tests/parallel/test_engines.py sees each.

A ring that is wrong in one of these ways still gives finite numbers of the right size.
"""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks
from test_engines import Case, plain_attention, sharded_attention

from imax_dist.parallel.attention import PartialAttention, merge
from imax_dist.parallel.engines import padded
from imax_dist.parallel.engines import torch as torch_engine
from imax_dist.parallel.engines.registry import ENGINES
from imax_dist.parallel.key_parts import KeyPart, attend_parts, key_parts
from imax_dist.parallel.mesh import build_mesh
from imax_dist.parallel.topology import Topology

FAULTS: dict[str, tuple[str, Case]] = {
    "text counted on every ring rank": ("torch", Case(replicated=True)),
    "padding attended to on one hop": ("diffusers", Case()),
}
"""Name -> the engine it is put into, and what that computes."""


def count_text_again() -> None:
    """Replicated text is merged once more at the second hop."""
    calls: list[PartialAttention] = []

    def faulty(*arguments: Any, **named: Any) -> PartialAttention:
        part = attend_parts(*arguments, **named)
        calls.append(part)
        return merge(part, calls[0]) if len(calls) == 3 else part  # text, own block, second block

    torch_engine.attend_parts = faulty  # type: ignore[attr-defined]


def attend_to_padding() -> None:
    """The second block's rows are all taken for keys, as if its mask had stayed behind."""
    calls: list[int] = []

    def faulty(*arguments: Any, padded_to: int, **named: Any) -> list[KeyPart]:
        calls.append(1)
        parts = key_parts(*arguments, padded_to=padded_to, **named)
        return [KeyPart(((0, padded_to),))] if len(calls) == 2 else parts

    padded.key_parts = faulty  # type: ignore[attr-defined]


INJECT = dict(zip(FAULTS, (count_text_again, attend_to_padding), strict=True))


def errors(topology: Topology, fault: str) -> tuple[float, float]:
    """Of the image tokens against plain attention: as it is, and with the fault on this rank."""
    name, case = FAULTS[fault]
    mesh = build_mesh(topology, ulysses=1, ring=2)
    engine = ENGINES[name](mesh)
    expected = plain_attention(case)[:, case.text :].numpy()
    found = []
    for inject in (lambda: None, INJECT[fault]):
        inject()
        found.append(float(abs(sharded_attention(engine, mesh, case)["image"] - expected).max()))
    return found[0], found[1]


@pytest.mark.parametrize("fault", FAULTS)
def test_parity_sees_the_fault_in_a_real_ring(fault: str) -> None:
    for right, wrong in run_ranks(2, errors, fault):
        assert right < 1e-10
        assert wrong > 1e-6
