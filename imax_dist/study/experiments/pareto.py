"""Quality over cost: every variant as a point, the front as a line, and the names that a reader looks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imax_dist.study.experiments.figure import COLOURS, direction, dress, new_figure
from imax_dist.study.experiments.labels import SIZE, offsets
from imax_dist.study.experiments.measures import ALL
from imax_dist.study.experiments.table import shown_measures

Found = Mapping[str, Any]
_PANEL = (2.9, 2.3)  # inches


def pareto(found: Found) -> Any:
    """A row of panels a size, a panel a measure over the planned seconds.

    The settings' ``plotted`` measures and ``named`` variants, else all. An enlargement is not a recipe: one
    without planned seconds is a dotted line, the others are not shown.
    """
    settings = found["settings"]
    measures = settings.get("plotted") or [name for name in shown_measures(found) if name != "planned"]
    figure, axes = new_figure(len(found["sizes"]), len(measures), height=_PANEL[1], width=_PANEL[0])
    for row, (label, size) in enumerate(found["sizes"].items()):
        for column, measure in enumerate(measures):
            axis, last = axes[row][column], row == len(found["sizes"]) - 1
            _panel(axis, size["variants"], measure, settings)
            title = f"{measure} ({direction(measure)})" if row == 0 else ""
            dress(axis, title, where=f"{label}, n = {size['n']}" if not column else "")
            axis.set_xlabel("seconds, FLUX.1-dev on one H100, predicted" if last else "", fontsize=7)
    return figure


def _panel(axis: Any, found: Mapping[str, Any], measure: str, settings: Mapping[str, Any]) -> None:
    """One measure at one size; "not measured" where it was not."""
    enlarged = {name for name, one in settings["variants"].items() if (one or {}).get("enlarge")}
    recipes = {
        name: (stats["planned"]["mean"], stats[measure])
        for name, stats in found.items()
        if name not in enlarged and {"planned", measure} <= set(stats)
    }
    if not recipes:
        axis.text(0.5, 0.5, "not measured", ha="center", fontsize=SIZE, transform=axis.transAxes)
        axis.axis("off")
        return
    for name in enlarged:
        if measure in found[name] and "planned" not in found[name]:
            axis.axhline(found[name][measure]["mean"], color="#999999", linewidth=0.8, linestyle=":")
            axis.text(1, found[name][measure]["mean"], name, ha="right", va="bottom", fontsize=SIZE - 1,
                      color="#777777", transform=axis.get_yaxis_transform())  # fmt: skip
    points = {name: (cost, stats["mean"]) for name, (cost, stats) in recipes.items()}
    axis.plot(*zip(*points.values(), strict=True), ".", color="#a9bcd8", markersize=5)
    front = pareto_front(list(points.values()), measure)
    axis.plot(*zip(*front, strict=True), color=COLOURS[1], linewidth=0.8, zorder=0)
    _names(axis, {name: points[name] for name in settings.get("named") or points if name in points})


def _names(axis: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Strong points over a logarithmic cost, each with its name."""
    axis.plot(*zip(*points.values(), strict=True), ".", color=COLOURS[0], markersize=6)
    axis.margins(0.12)
    _plain_log(axis.xaxis)
    scale = axis.transScale + axis.transLimits
    panel = (_PANEL[0] * 72 * 0.85, _PANEL[1] * 72 * 0.85)
    shown = {name: tuple(scale.transform(point) * panel) for name, point in points.items()}
    for name, offset in offsets(shown, panel).items():
        axis.annotate(name, points[name], fontsize=SIZE, xytext=offset, textcoords="offset points")


def _plain_log(x_axis: Any) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5, or over two decades at 1 and 3, in plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    x_axis.axes.set_xscale("log")
    low, high = x_axis.get_view_interval()
    x_axis.set_major_locator(LogLocator(subs=(1, 3) if high > 40 * low else (1, 2, 5)))
    x_axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    x_axis.set_minor_locator(NullLocator())


def pareto_front(points: list[tuple[float, float]], measure: str) -> list[tuple[float, float]]:
    """The (cost, value) points that no cheaper point is as good as, by cost."""
    sign = {"high": 1.0, "low": -1.0, "zero": -1.0}[ALL[measure].better]
    front: list[tuple[float, float]] = []
    best = float("-inf")
    for cost, value in sorted(points):
        merit = sign * (abs(value) if ALL[measure].better == "zero" else value)
        if merit > best:
            front.append((cost, value))
            best = merit
    return front
