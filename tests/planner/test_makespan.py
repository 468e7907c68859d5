"""The makespan of a batch against a clock that ticks, and against the best of all assignments."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from imax_dist.planner.estimate import makespan

POSTERS = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def by_the_clock(posters: list[int], gangs: int) -> int:
    """Simulate second by second: free gangs take the next poster."""
    waiting, left, now = list(posters), [0] * gangs, 0
    while waiting or any(left):
        for gang in range(gangs):
            if not left[gang] and waiting:
                left[gang] = waiting.pop(0)
        left = [max(0, seconds - 1) for seconds in left]
        now += 1
    return now


def best(posters: list[int], gangs: int) -> int:
    """The shortest makespan over every assignment of posters to gangs."""
    spans = []
    for places in itertools.product(range(gangs), repeat=len(posters)):
        loads = [sum(p for p, place in zip(posters, places, strict=True) if place == g) for g in range(gangs)]
        spans.append(max(loads))
    return min(spans)


@settings(max_examples=60, deadline=None)
@given(posters=POSTERS, gangs=st.integers(1, 4))
def test_the_makespan_is_what_a_clock_says(posters: list[int], gangs: int) -> None:
    assert makespan([float(p) for p in posters], gangs).seconds == by_the_clock(posters, gangs)


@settings(max_examples=25, deadline=None)
@given(posters=POSTERS, gangs=st.integers(1, 3))
def test_it_is_within_grahams_bound_of_the_best_and_the_tail_adds_up(posters: list[int], gangs: int) -> None:
    found, least = makespan([float(p) for p in posters], gangs), best(posters, gangs)
    assert least <= found.seconds <= (2 - 1 / gangs) * least
    assert found.idle == gangs * found.seconds - sum(posters)


def test_equal_posters_run_in_waves() -> None:
    span = makespan([10.0] * 100, 8)
    assert (span.seconds, span.idle) == (130.0, 40.0)
