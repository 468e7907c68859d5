"""A study's plot as PNG and SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.output.atomic import write_bytes
from imax_dist.study.experiments.figure import COLOURS, curve, direction, dress, new_figure, png_of
from imax_dist.study.experiments.pareto import pareto
from imax_dist.study.experiments.table import shown_measures

Found = Mapping[str, Any]
_MOST = 6  # panels


def write_plots(folder: Path, found: Found) -> None:
    """``plot.png`` and ``plot.svg``. Raises MissingInput without matplotlib."""
    figure = draw(found)
    write_bytes(folder / "plot.png", png_of(figure, dpi=110))
    memory = io.BytesIO()
    figure.savefig(memory, format="svg", bbox_inches="tight", metadata={"Date": None})
    write_bytes(folder / "plot.svg", memory.getvalue())


def draw(found: Found) -> Any:
    """The figure: bars a variant, lines over the variants' ``at``, quality over cost, or losses over time."""
    settings = found["settings"]
    if settings["kind"] == "velocity_loss":
        return _losses(found)
    if settings["plot"] == "pareto":
        return pareto(found)
    kinds = {"bars": _bars, "lines": _lines, "sizes": _sizes}
    return kinds[settings["plot"]](found)


def _bars(found: Found) -> Any:
    """A row of panels a size, a panel a measure, a bar a variant with its interval."""
    measures = shown_measures(found)[:_MOST]
    names = list(found["settings"]["variants"])
    figure, axes = new_figure(len(found["sizes"]), len(measures), height=0.28 * len(names) + 0.8)
    for row, (label, size) in enumerate(found["sizes"].items()):
        for column, measure in enumerate(measures):
            axis = axes[row][column]
            stats = [size["variants"][name].get(measure) for name in names]
            for place, value in enumerate(stats):
                if value is not None:
                    _bar(axis, place, value, strong=names[place] == found["baseline"])
            axis.set_yticks(range(len(names)), names if column == 0 else [""] * len(names), fontsize=8)
            axis.invert_yaxis()
            dress(
                axis,
                f"{measure} ({direction(measure)})",
                where=f"{label}, n = {size['n']}" if not column else "",
            )
    return figure


def _bar(axis: Any, place: int, stats: Mapping[str, float], *, strong: bool) -> None:
    axis.barh(place, stats["mean"], color=COLOURS[0] if strong else "#a9bcd8", height=0.7)
    axis.plot([stats["low"], stats["high"]], [place, place], color="#333333", linewidth=1.2)


def _lines(found: Found) -> Any:
    """A panel a measure, a line a size, over the variants' ``at``."""
    measures = shown_measures(found)[:_MOST]
    ways = found["settings"]["variants"]
    figure, axes = new_figure(1, len(measures), height=2.6)
    for column, measure in enumerate(measures):
        axis = axes[0][column]
        for colour, (label, size) in zip(COLOURS, found["sizes"].items(), strict=False):
            held = {n: size["variants"][n][measure] for n in ways if measure in size["variants"][n]}
            points = sorted(
                (ways[n]["at"], stats) for n, stats in held.items() if ways[n].get("at") is not None
            )
            curve(axis, points, colour, f"{label}, n = {size['n']}")
            for name, stats in held.items():
                if ways[name].get("at") is None:
                    axis.axhline(
                        stats["mean"], color=colour, linewidth=0.8, linestyle=":", label=f"{label} {name}"
                    )
        axis.set_xlabel(found["settings"]["axis"], fontsize=8)
        dress(axis, f"{measure} ({direction(measure)})")
    axes[0][0].legend(fontsize=6)
    return figure


def _sizes(found: Found) -> Any:
    """A panel a measure, a line a variant, over the sizes."""
    measures = shown_measures(found)[:_MOST]
    figure, axes = new_figure(1, len(measures), height=2.6)
    for column, measure in enumerate(measures):
        axis = axes[0][column]
        for colour, name in zip(COLOURS, found["settings"]["variants"], strict=False):
            stats = {
                float(label.split("x")[0]): size["variants"][name] for label, size in found["sizes"].items()
            }
            points = sorted((x, values[measure]) for x, values in stats.items() if measure in values)
            curve(axis, points, colour, name)
        axis.set_xlabel(found["settings"]["axis"], fontsize=8)
        dress(axis, f"{measure} ({direction(measure)})")
    axes[0][0].legend(fontsize=6)
    return figure


def _losses(found: Found) -> Any:
    """Loss over time a size, then its ratio to native."""
    names = list(found["settings"]["variants"])
    figure, axes = new_figure(2, len(names), height=2.4)
    for column, name in enumerate(names):
        for colour, (label, size) in zip(COLOURS, found["sizes"].items(), strict=False):
            stats = {float(t[2:]): v for t, v in size["variants"][name].items() if t.startswith("t=")}
            curve(axes[0][column], sorted(stats.items()), colour, f"{label}, n = {size['n']}")
            ratios = [(time, value["ratio"]) for time, value in sorted(stats.items()) if "ratio" in value]
            axes[1][column].plot(*zip(*ratios, strict=True), color=colour) if ratios else None
        axes[1][column].set_xlabel(found["settings"]["axis"], fontsize=8)
        dress(axes[0][column], name, where="velocity loss" if not column else "")
        dress(axes[1][column], "", where="ratio to native" if not column else "")
    axes[0][0].legend(fontsize=6)
    return figure
