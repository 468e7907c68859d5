"""The best legal layout of a batch on a cluster, the others with the reason why not, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imax_dist.errors import BadValue
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.estimate import (
    GIB,
    Estimate,
    Rejected,
    estimate,
    kinds_of,
    not_legal,
    too_large,
    usable_bytes,
)
from imax_dist.planner.memory import USABLE
from imax_dist.planner.refusal import refusal
from imax_dist.planner.split import Fixed, gangs_that_fit, layouts
from imax_dist.planner.workload import Workload

TIGHT = 0.85
"""Beyond this share of the memory a plan carries a warning: forecasts are good to 30 %."""
ALIKE = 1.01
"""Plans this close count as equally fast; the one with fewer ranks a gang loses less when a rank dies."""


@dataclass(frozen=True)
class Choice:
    """The plan."""

    cluster: Cluster
    chosen: Estimate
    rejected: tuple[Rejected, ...]
    warnings: tuple[str, ...]
    compiled: bool = False
    """Whether blocks are compiled, as asked or because that is done first."""


def choose(works: Sequence[Workload], cluster: Cluster, **decided: int | None) -> Choice:
    """The layout that is done first. Raises BadValue, with what would work, if none is legal and fits.

    ``works`` are the posters in the order they are begun; ``decided`` are fields of Fixed. Where it is left
    open, blocks are compiled if that is done first, compiling included.
    """
    fixed = Fixed(**decided)
    ways = [_with(works, compiled=compiled) for compiled in _open_ways(works)]
    return min((_choose(way, cluster, fixed) for way in ways), key=lambda each: each.chosen.seconds)


def _open_ways(works: Sequence[Workload]) -> tuple[bool, ...]:
    return (False, True) if any(work.compiled is None for work in works) else (False,)


def _with(works: Sequence[Workload], *, compiled: bool) -> list[Workload]:
    """What is left open decided; posters that are one object stay one."""
    made = {
        id(work): replace(work, compiled=compiled) if work.compiled is None else work
        for work in {id(work): work for work in works}.values()
    }
    return [made[id(work)] for work in works]


def _choose(works: Sequence[Workload], cluster: Cluster, fixed: Fixed) -> Choice:
    tried = layouts(cluster, fixed)
    if not tried:
        raise BadValue(_no_room(cluster, fixed))
    kinds = kinds_of(works)
    for work in kinds:
        cluster.hardware.rates_of(work.dtype)
    rejected, found = [], []
    for layout in tried:
        illegal = not_legal(kinds, layout.split)
        reason = illegal or too_large(kinds, layout, cluster)
        if reason is None:
            found.append(estimate(works, layout, cluster))
        else:
            rejected.append(Rejected(layout, reason, legal=illegal is None))
    if not found:
        raise BadValue(refusal(kinds, cluster, rejected))
    fastest = min(each.span.seconds for each in found)
    best = min(
        (each for each in found if each.span.seconds <= ALIKE * fastest),
        key=lambda each: (each.layout.split.ranks, each.span.seconds),
    )
    others = sorted((each for each in found if each is not best), key=lambda each: each.span.seconds)
    slower = [Rejected(each.layout, _slower(each, best), estimate=each) for each in others]
    compiled = any(work.compiled for work in kinds)
    return Choice(cluster, best, (*slower, *rejected), tuple(_warnings(best, cluster)), compiled)


def _slower(other: Estimate, best: Estimate) -> str:
    ratio = other.span.seconds / best.span.seconds
    if ratio <= ALIKE:
        more = other.layout.split.ranks > best.layout.split.ranks
        return "as fast within 1 %" + (", but a lost rank stops more of the work" if more else "")
    return f"{100 * (ratio - 1):.0f} % slower"


def _warnings(best: Estimate, cluster: Cluster) -> list[str]:
    have = usable_bytes(best.layout, cluster) / USABLE
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
