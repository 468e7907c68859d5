"""A choice in words for people, and as JSON values for programs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from imax_dist.planner.choose import Choice
from imax_dist.planner.communication import sent
from imax_dist.planner.estimate import GIB, Estimate, Rejected, usable_bytes
from imax_dist.planner.hardware import Hardware
from imax_dist.planner.poster import PosterTime
from imax_dist.planner.workload import Workload
from imax_dist.wording import duration, plural

WIDTH = 100
NO_BREAK = "\u00a0"
SMALL = "embedded"
SHOWN = 6
"""Rejected layouts that people see unless they ask for all."""


def lines(
    choice: Choice, works: list[Workload], *, presets: Iterable[str] = (), every: bool = False
) -> list[str]:
    """The plan for people; with ``every`` rejected layout, or the best of each gang size."""
    best, device = choice.chosen, choice.cluster.hardware
    usable = usable_bytes(best.layout, choice.cluster)
    largest = max(works, key=lambda work: work.latents)
    sizes = sorted({work.size for work in works})
    found = [
        f"{plural(len(works), 'poster')} of {', '.join(sizes[:3])}{' ...' if len(sizes) > 3 else ''} px with "
        f"{largest.network.name} ({largest.dtype}) on {choice.cluster}{_recipes(presets)}{_small(works)}",
        f"predicted from {_origin(device)}",
        "",
        f"  who runs what   {best.layout}{', blocks compiled' if choice.compiled else ''}",
        f"  a step          {duration(best.longest.step.total)}  ({_shares(best)})",
        f"  a poster        {duration(best.longest.total)}  ({_stages(best)})",
        f"  memory a rank   {_memory(best)}, {usable / GIB:.1f} GiB usable",
        f"  sent            {_sent(best, largest)}",
        f"  all done in     {duration(best.seconds)}, {best.gpu_hours:.3g} {_hours(choice)}{_start(best)}",
    ]
    if best.efficiencies is not None:
        found.append(f"  efficiency      {_efficiency(best)}")
    found += [f"  careful         {warning}" for warning in choice.warnings]
    shown = choice.rejected if every else _best_of_each(choice.rejected)
    if shown:
        found += ["", "  not taken"]
        found += [f"    {_rejected(each)}" for each in shown]
    hidden = len(choice.rejected) - len(shown)
    found += [f"    and {hidden} more (--all)"] * (hidden > 0)
    return [part for line in found for part in _folded(line)]


def _recipes(presets: Iterable[str]) -> str:
    names = sorted(set(presets))
    return f", {'preset' if len(names) == 1 else 'presets'} {', '.join(names)}" if names else ""


def _small(works: list[Workload]) -> str:
    """A buyer must not take the times of the embedded model for those of a large one."""
    small = any(work.network.name == SMALL for work in works)
    return f"; {SMALL} is the small model for trials, --model names another" if small else ""


def _folded(line: str) -> list[str]:
    """A line of the plan in a terminal's width; what does not fit goes on below its text."""
    indent = 8 if line.startswith("    ") else 18 if line.startswith("  ") else 0
    whole = re.sub(r"(?<=\d) (?=\S)", NO_BREAK, line)  # a number keeps its unit
    folded = textwrap.wrap(whole, WIDTH, subsequent_indent=" " * indent, break_long_words=False)
    return [part.replace(NO_BREAK, " ") for part in folded] or [""]


def _origin(device: Hardware) -> str:
    """What the rates are worth."""
    if device.measured:
        return "measured rates of this kind of device; no poster was timed"
    if device.kind == "cpu":
        return "typical rates of a core, good to a factor of two (imax doctor --measure measures yours)"
    return "data-sheet rates, not measured"


def as_json(choice: Choice, works: list[Workload]) -> dict[str, Any]:
    """The same as JSON values: seconds, bytes, FLOPs."""
    device = choice.cluster.hardware
    return {
        "cluster": {
            "hardware": device.name,
            "nodes": choice.cluster.nodes,
            "per_node": choice.cluster.per_node,
            "measured": device.measured,
        },
        "posters": len(works),
        "compile": "regional" if choice.compiled else "none",
        "transformer_flops": sum(work.flops for work in works),
        "chosen": _estimate(choice.chosen),
        "rejected": [
            {
                "gangs": each.layout.gangs,
                "ulysses": each.layout.split.ulysses,
                "ring": each.layout.split.ring,
                "legal": each.legal,
                "reason": each.reason,
                **({"makespan": each.estimate.seconds} if each.estimate else {}),
            }
            for each in choice.rejected
        ],
        "warnings": list(choice.warnings),
    }


def one_line(choice: Choice) -> str:
    """What a batch says before it begins."""
    best = choice.chosen
    return (
        f"planned: {best.layout} on {choice.cluster}, about {duration(best.seconds)} "
        f"({best.memory.total / GIB:.1f} GiB a rank); --gangs and --ranks override it"
    )


def _estimate(estimate: Estimate) -> dict[str, Any]:
    split = estimate.layout.split
    return {
        "gangs": estimate.layout.gangs,
        "ranks": split.ranks,
        "ulysses": split.ulysses,
        "ring": split.ring,
        "step": {**asdict(estimate.longest.step), "total": estimate.longest.step.total},
        "poster": {
            **{
                name: getattr(estimate.longest, name)
                for name in ("prompt", "native", "enlarge", "extrapolated", "decode", "write", "total")
            }
        },
        "memory": {**asdict(estimate.memory), "total": estimate.memory.total},
        "start": estimate.start,
        "makespan": estimate.seconds,
        "tail_idle": estimate.span.idle,
        "gpu_hours": estimate.gpu_hours,
        "native_by": estimate.longest.native_by,
        "passes_ahead": estimate.longest.passes_ahead,
        "efficiency": dict(zip(("step", "poster"), estimate.efficiencies or (1.0, 1.0), strict=True)),
    }


NATIVE_BY = {
    "rank0": "rank 0 makes the native picture",
    "shared": "all ranks make the native picture",
    "ahead": "each rank makes the native picture of a poster of its own before",
}


def _efficiency(best: Estimate) -> str:
    """Of a step and of a poster, and which stages the ranks lose it in."""
    step, poster = best.efficiencies or (1.0, 1.0)
    text = f"{100 * step:.0f} % of a step, {100 * poster:.0f} % of a poster"
    if best.alone is not None:
        lost = best.longest.lost(best.alone, best.layout.split.ranks)
        named = [f"{name} {100 * share:.0f} %" for name, share in lost.items() if share >= 0.005]
        text += f"; lost: {', '.join(named)}" if named else ""
    made = best.longest.native or best.longest.passes_ahead
    return f"{text}; {_native_by(best.longest)}" if made else text


def _native_by(poster: PosterTime) -> str:
    if poster.passes_ahead < 2:
        return NATIVE_BY[poster.native_by]
    return f"each rank makes the first {poster.passes_ahead} passes of a poster of its own before"


def _start(best: Estimate) -> str:
    """What a gang does before its first poster, where that is much."""
    return f", {duration(best.start)} of it before the first poster" if best.start >= 1.0 else ""


def _hours(choice: Choice) -> str:
    return "GPU-hours" if choice.cluster.hardware.kind == "gpu" else "core-hours"


def _shares(best: Estimate) -> str:
    step = best.longest.step
    parts = {
        "attention": step.attention,
        "matrices": step.linear,
        "element-wise": step.elementwise + step.guidance,
        "between ranks": step.communication,
        "starting kernels": step.starting,
    }
    shown = [
        f"{name} {100 * part / step.total:.0f} %"
        for name, part in parts.items()
        if part >= 0.005 * step.total
    ]
    return ", ".join(shown)


def _stages(best: Estimate) -> str:
    shown = ((name, seconds) for name, seconds in best.longest.stages.items() if seconds >= 0.005)
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in shown)


def _memory(best: Estimate) -> str:
    memory = best.memory
    return (
        f"{memory.total / GIB:.1f} GiB: weights {memory.weights / GIB:.1f}, text encoders "
        f"{memory.encoders / GIB:.1f}, {memory.fullest} {memory.stages / GIB:.1f}"
    )


def _sent(best: Estimate, work: Workload) -> str:
    last = max(work.extrapolated or work.native, key=lambda each: each.tokens)
    if best.layout.split.ranks == 1:
        return "nothing, no rank waits for another"
    moved = sent(work.network.transformer, last, best.layout.split, element=work.element)
    parts = [f"{name} {_amount(amount)}" for name, amount in asdict(moved).items() if amount]
    return f"{_amount(moved.total)} a step and rank ({', '.join(parts)})"


def _amount(count: float) -> str:
    """Bytes in people's units."""
    unit, name = next(
        each for each in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")) if count >= each[0]
    )
    return f"{count / unit:.3g} {name}"


def _rejected(each: Rejected) -> str:
    return f"{each.layout}: {each.reason}"


def _best_of_each(rejected: tuple[Rejected, ...]) -> list[Rejected]:
    """The best of every gang size, fitting ones first."""
    seen: dict[int, Rejected] = {}
    for each in rejected:
        seen.setdefault(each.layout.split.ranks, each)
    return list(seen.values())[:SHOWN]
