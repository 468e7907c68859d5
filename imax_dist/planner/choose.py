"""The best legal layout of a batch on a cluster, the others with the reason why not, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imax_dist.errors import BadValue
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.makespan import Makespan, makespan
from imax_dist.planner.memory import RankMemory, rank_memory
from imax_dist.planner.split import Fixed, Layout, Split, gangs_that_fit, layouts, splits, why_illegal
from imax_dist.planner.time import PosterTime, poster_time
from imax_dist.planner.workload import Workload

GIB = 2.0**30
USABLE = 0.96
"""Of a device's memory: the allocator's fragments and other processes take the rest."""
TIGHT = 0.85
"""Beyond this share of the memory a plan carries a warning: forecasts are good to 30 %."""
ALIKE = 1.01
"""Plans this close count as equally fast; the one with fewer ranks a gang loses less when a rank dies."""


@dataclass(frozen=True)
class Outlook:
    """What one layout would give."""

    layout: Layout
    memory: RankMemory
    """Of the poster that needs most."""
    longest: PosterTime
    """The poster that takes longest."""
    span: Makespan
    posters: int

    @property
    def gpu_hours(self) -> float:
        """Device-hours that the layout's ranks are held."""
        return self.layout.devices * self.span.seconds / 3600


@dataclass(frozen=True)
class Rejected:
    """A layout and why it was not taken."""

    layout: Layout
    reason: str
    legal: bool = True
    outlook: Outlook | None = None


@dataclass(frozen=True)
class Choice:
    """The plan."""

    cluster: Cluster
    chosen: Outlook
    rejected: tuple[Rejected, ...]
    warnings: tuple[str, ...]


def choose(works: Sequence[Workload], cluster: Cluster, **decided: int | None) -> Choice:
    """The layout that is done first. Raises BadValue, with what would work, if none is legal and fits.

    ``works`` are the posters in the order they are begun; ``decided`` are fields of Fixed.
    """
    fixed = Fixed(**decided)
    tried = layouts(cluster, fixed)
    if not tried:
        raise BadValue(_no_room(cluster, fixed))
    kinds = list(dict.fromkeys(works))
    for work in kinds:
        cluster.hardware.rates_of(work.dtype)
    rejected, found = [], []
    for layout in tried:
        illegal = _illegal(kinds, layout.split)
        reason = illegal or _too_large(kinds, layout, cluster)
        if reason is None:
            found.append(outlook(works, layout, cluster))
        else:
            rejected.append(Rejected(layout, reason, legal=illegal is None))
    if not found:
        from imax_dist.planner.refusal import refusal

        raise BadValue(refusal(kinds, cluster, rejected))
    fastest = min(each.span.seconds for each in found)
    best = min(
        (each for each in found if each.span.seconds <= ALIKE * fastest),
        key=lambda each: (each.layout.split.ranks, each.span.seconds),
    )
    others = sorted((each for each in found if each is not best), key=lambda each: each.span.seconds)
    slower = [Rejected(each.layout, _slower(each, best), outlook=each) for each in others]
    return Choice(cluster, best, (*slower, *rejected), tuple(_warnings(best, cluster)))


def outlook(works: Sequence[Workload], layout: Layout, cluster: Cluster) -> Outlook:
    """Times and memory of a batch on ``layout``; no gang more than there are posters."""
    kinds = dict.fromkeys(works)
    times = {work: poster_time(work, layout.split, cluster) for work in kinds}
    used = Layout(min(layout.gangs, len(works)), layout.split)
    memories = [rank_memory(work, layout.split, cluster) for work in kinds]
    return Outlook(
        layout=used,
        memory=max(memories, key=lambda each: each.total),
        longest=max(times.values(), key=lambda each: each.total),
        span=makespan([times[work].total for work in works], used.gangs),
        posters=len(works),
    )


def room(layout: Layout, cluster: Cluster) -> float:
    """Bytes a rank may use: its GPU's, or its share of the host's where ranks share one."""
    on_node = min(cluster.per_node, -(-layout.devices // cluster.nodes))
    return USABLE * cluster.memory_a_rank(on_node)


def _illegal(kinds: Sequence[Workload], split: Split) -> str | None:
    for work in kinds:
        image = min((each.image for each in work.extrapolated), default=split.ranks)
        reason = why_illegal(split, work.network.transformer, image_tokens=image)
        if reason is not None:
            return reason
    return None


def _too_large(kinds: Sequence[Workload], layout: Layout, cluster: Cluster) -> str | None:
    for work in kinds:
        need, have = rank_memory(work, layout.split, cluster), room(layout, cluster)
        if need.total > have:
            return (
                f"{work.size} needs {need.total / GIB:.1f} GiB a rank ({need.fullest} "
                f"{need.stages / GIB:.1f}, weights {(need.weights + need.encoders) / GIB:.1f}), "
                f"{have / GIB:.1f} can be used"
            )
    return None


def _slower(other: Outlook, best: Outlook) -> str:
    ratio = other.span.seconds / best.span.seconds
    if ratio <= ALIKE:
        more = other.layout.split.ranks > best.layout.split.ranks
        return "as fast within 1 %" + (", but a lost rank stops more of the work" if more else "")
    return f"{100 * (ratio - 1):.0f} % slower"


def _warnings(best: Outlook, cluster: Cluster) -> list[str]:
    have = room(best.layout, cluster) / USABLE
    found = []
    if best.memory.total > TIGHT * have:
        found.append(
            f"memory is tight: {best.memory.total / GIB:.1f} of {have / GIB:.1f} GiB a rank, set by "
            f"{best.memory.fullest}; forecasts are good to about 30 %"
        )
    if best.layout.devices < cluster.devices:
        idle = cluster.devices - best.layout.devices
        found.append(f"{idle} of {cluster.devices} {cluster.hardware.name} stay idle")
    if best.span.idle > 0.1 * best.layout.gangs * best.span.seconds:
        share = best.span.idle / (best.layout.gangs * best.span.seconds)
        found.append(
            f"{100 * share:.0f} % of the gangs' time is idle at the end, waiting for the last posters"
        )
    return found


def _no_room(cluster: Cluster, fixed: Fixed) -> str:
    sizes = range(1, cluster.devices + 1)
    fitting = [n for n in sizes if gangs_that_fit(cluster, n) >= (fixed.gangs or 1)]
    hint = f"a gang can have {_ranges(fitting)} ranks" if fitting else f"there are {cluster.devices} devices"
    return f"{cluster} has no room for {fixed}: {hint} here" + (
        " (whole nodes beyond one)" if cluster.nodes > 1 else ""
    )


def _ranges(numbers: list[int]) -> str:
    """``1-4, 8``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def best_split(work: Workload, ranks: int, cluster: Cluster) -> Split | None:
    """The fastest legal split of ``ranks`` ranks that fits in memory."""
    legal = [s for s in splits(ranks) if _illegal([work], s) is None]
    fitting = [s for s in legal if _too_large([work], Layout(1, s), cluster) is None]
    return min(fitting, key=lambda s: poster_time(work, s, cluster).total, default=None)
