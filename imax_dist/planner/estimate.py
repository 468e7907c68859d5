"""What a layout gives a batch: seconds, bytes a rank, and whether it can be at all."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from imax_dist.planner.cluster import Cluster
from imax_dist.planner.memory import USABLE, RankMemory, rank_memory
from imax_dist.planner.poster import PosterTime, poster_time, start_time
from imax_dist.planner.split import Layout, Split, splits, why_illegal
from imax_dist.planner.workload import Workload

GIB = 2.0**30


@dataclass(frozen=True)
class Makespan:
    """Seconds until the last poster is done, and how long gangs stand idle before that, added up."""

    seconds: float
    idle: float
    """Gang-seconds without work at the end: the tail."""


@dataclass(frozen=True)
class Estimate:
    """What one layout would give."""

    layout: Layout
    memory: RankMemory
    """Of the poster that needs most."""
    longest: PosterTime
    """The poster that takes longest."""
    span: Makespan
    posters: int
    start: float = 0.0
    """Seconds of a gang before its first poster."""
    alone: PosterTime | None = None
    """The longest poster on one rank, whether it fits there or not; None for gangs of one."""

    @property
    def seconds(self) -> float:
        """Until all posters are done."""
        return self.start + self.span.seconds

    @property
    def gpu_hours(self) -> float:
        """Device-hours that the layout's ranks are held."""
        return self.layout.devices * self.seconds / 3600

    @property
    def efficiencies(self) -> tuple[float, float] | None:
        """Of a step and of the longest poster: one rank's seconds over those of all ranks added up."""
        if self.alone is None:
            return None
        ranks = self.layout.split.ranks
        step = self.alone.step.total / (ranks * self.longest.step.total)
        return step, self.alone.total / (ranks * self.longest.total)


@dataclass(frozen=True)
class Rejected:
    """A layout and why it was not taken."""

    layout: Layout
    reason: str
    legal: bool = True
    estimate: Estimate | None = None


def makespan(posters: Sequence[float], gangs: int) -> Makespan:
    """Of posters that take so many seconds each, in the order they are begun."""
    free_at = [0.0] * gangs
    for seconds in posters:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    last = max(free_at)
    return Makespan(last, sum(last - each for each in free_at))


def kinds_of(works: Sequence[Workload]) -> list[Workload]:
    """The different ones in order; of many posters that are one object its many numbers are hashed once."""
    return list(dict.fromkeys({id(work): work for work in works}.values()))


def estimate(works: Sequence[Workload], layout: Layout, cluster: Cluster) -> Estimate:
    """Times and memory of a batch on ``layout``; no gang more than there are posters."""
    kinds = kinds_of(works)
    used = Layout(min(layout.gangs, len(works)), layout.split)
    of_each = -(-len(works) // used.gangs)
    times = {work: poster_time(work, layout.split, cluster, posters=of_each) for work in kinds}
    seconds = {key: times[work].total for key, work in {id(work): work for work in works}.items()}
    slowest = max(times, key=lambda work: times[work].total)
    alone = poster_time(slowest, Split(), cluster) if layout.split.ranks > 1 else None
    memories = [rank_memory(work, layout.split, cluster) for work in kinds]
    return Estimate(
        layout=used,
        memory=max(memories, key=lambda each: each.total),
        longest=times[slowest],
        span=makespan([seconds[id(work)] for work in works], used.gangs),
        posters=len(works),
        start=max(start_time(work, cluster) for work in kinds),
        alone=alone,
    )


def usable_bytes(layout: Layout, cluster: Cluster) -> float:
    """Bytes a rank may use: its GPU's, or its share of the host's where ranks share one."""
    on_node = min(cluster.per_node, -(-layout.devices // cluster.nodes))
    return USABLE * cluster.memory_a_rank(on_node)


def not_legal(kinds: Sequence[Workload], split: Split) -> str | None:
    """Why a degree of the split cannot be used for one of the posters; None if all can."""
    for work in kinds:
        image = min((each.image for each in work.extrapolated), default=split.ranks)
        reason = why_illegal(split, work.network.transformer, image_tokens=image)
        if reason is not None:
            return reason
    return None


def too_large(kinds: Sequence[Workload], layout: Layout, cluster: Cluster) -> str | None:
    """Which poster does not fit a rank's memory, with the numbers; None if all do."""
    for work in kinds:
        need, have = rank_memory(work, layout.split, cluster), usable_bytes(layout, cluster)
        if need.total > have:
            return (
                f"{work.size} needs {need.total / GIB:.1f} GiB a rank ({need.fullest} "
                f"{need.stages / GIB:.1f}, weights {(need.weights + need.encoders) / GIB:.1f}), "
                f"{have / GIB:.1f} can be used"
            )
    return None


def best_split(work: Workload, ranks: int, cluster: Cluster) -> Split | None:
    """The fastest legal split of ``ranks`` ranks that fits in memory."""
    legal = [s for s in splits(ranks) if not_legal([work], s) is None]
    fitting = [s for s in legal if too_large([work], Layout(1, s), cluster) is None]
    return min(fitting, key=lambda s: poster_time(work, s, cluster).total, default=None)
