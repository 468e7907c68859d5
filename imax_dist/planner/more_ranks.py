"""The least ranks that have room for a poster which ran out of memory on fewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from imax_dist.errors import ImaxError
from imax_dist.planner.choose import choose
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import Hardware
from imax_dist.planner.workload import Workload

MOST_RANKS = 64


class RanksThatFit(NamedTuple):
    """So many ranks, and a sentence of the memory that each needs."""

    ranks: int
    sentence: str


def smallest_fit(works: Sequence[Workload], hardware: Hardware, *, than: int) -> RanksThatFit | None:
    """The least of twice, four times, ... ``than`` ranks on which ``works`` fit.

    None for a poster that fits on no 64 ranks, or that the planner does not know enough of.
    """
    ranks = 2 * than
    while ranks <= MOST_RANKS:
        per_node = min(ranks, hardware.per_node)
        cluster = Cluster(hardware, per_node, math.ceil(ranks / per_node))
        with suppress(ImaxError):
            chosen = choose(works, cluster, gangs=1, ranks=ranks).chosen
            needed = chosen.memory.total / 2**30
            sentence = f"the planner finds room on {ranks}x{hardware.name}, {needed:.0f} GiB a rank"
            return RanksThatFit(ranks, sentence)
        ranks *= 2
    return None
