"""A study's numbers as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imax_dist.study.experiments.measures import ALL

DEFAULT = ("facts", "repeats", "layout", "spectrum", "frechet", "grid", "speckle")
TRUE_GUIDE = ("facts", "layout", "edges", "placed", "spectrum", "frechet")
MARKS = {"better": " ▲", "worse": " ▼", "even": ""}
FEWEST_FOR_VERDICT = 4
"""Scenes: a bootstrap of fewer says nothing about chance."""
Found = Mapping[str, Any]


def shown_measures(found: Found) -> list[str]:
    """The measures that plot and table show: the study's choice of those it has values for."""
    settings = found["settings"]
    wanted = settings["shown"] or (TRUE_GUIDE if settings["guide"] == "truth" else DEFAULT)
    held = next(iter(found["sizes"].values()))["variants"][found["baseline"]]
    if settings["kind"] == "velocity_loss":
        return [name for name in held if name.startswith("t=")]
    return [name for name in wanted if name in held] or [name for name in ALL if name in held]


def table(found: Found) -> str:
    """One table a size: means with 95 % intervals; arrows mark paired differences to the baseline
    whose interval excludes 0."""
    ratio = found["settings"]["kind"] == "velocity_loss"
    parts = [_size_table(found, label, ratio=ratio) for label in found["sizes"]]
    return "\n\n".join(parts) + "\n"


def _size_table(found: Found, label: str, *, ratio: bool) -> str:
    size, measures = found["sizes"][label], shown_measures(found)
    votes = size.get("preference")
    heads = [label + f", n = {size['n']}", *measures, *(["preferred"] if votes else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, values in size["variants"].items():
        row = [f"**{name}**" if name == found["baseline"] else name]
        row += [_cell(_judged(values, measure), ratio=ratio) for measure in measures]
        row += [interval(votes["strength"][name])] if votes else []
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _judged(values: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    """A signed measure is right at 0: its verdict is that of its distance from 0."""
    stats: Mapping[str, Any] | None = values.get(measure)
    if stats is None or f"{measure} gap" not in values:
        return stats
    return {**stats, "verdict": values[f"{measure} gap"]["verdict"]}


def _cell(stats: Mapping[str, Any] | None, *, ratio: bool) -> str:
    if stats is None:
        return "-"
    if ratio:
        return short(stats["mean"]) + (f" ({stats['ratio']:.2f}x)" if "ratio" in stats else "")
    return interval(stats) + (MARKS[stats["verdict"]] if stats["n"] >= FEWEST_FOR_VERDICT else "")


def interval(stats: Mapping[str, Any]) -> str:
    """``0.91 [0.83, 0.97]``."""
    return f"{short(stats['mean'])} [{short(stats['low'])}, {short(stats['high'])}]"


def short(value: float) -> str:
    """Three digits that matter, or two decimals."""
    if abs(value) < 0.005:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def legend(names: list[str]) -> str:
    """What the measures are and which way is better."""
    arrows = {"high": "higher is better", "low": "lower is better", "zero": "0 is right"}
    return "\n".join(f"- **{n}**: {ALL[n].text} ({arrows[ALL[n].better]})" for n in names if n in ALL)
