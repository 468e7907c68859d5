"""When a batch is over: posters go in order to the first gang that is free, as in the pool."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Makespan:
    """Seconds until the last poster is done, and how long gangs stand idle before that, added up."""

    seconds: float
    idle: float
    """Gang-seconds without work at the end: the tail."""


def makespan(posters: Sequence[float], gangs: int) -> Makespan:
    """Of posters that take so many seconds each, in the order they are begun."""
    free_at = [0.0] * gangs
    for seconds in posters:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    last = max(free_at)
    return Makespan(last, sum(last - each for each in free_at))
