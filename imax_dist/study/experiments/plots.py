"""A study's plot as PNG and SVG. matplotlib's object interface: no window, no global figure."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.errors import MissingInput
from imax_dist.output.atomic import write_bytes
from imax_dist.study.experiments.labels import SIZE, gathered, offsets
from imax_dist.study.experiments.measures import ALL
from imax_dist.study.experiments.table import shown_measures

Found = Mapping[str, Any]
COLOURS = ("#3b6fb6", "#d1793b", "#4a9a5b", "#a44a8a", "#7a7a7a", "#b6a23b")
_MOST = 6  # panels


def write_plots(folder: Path, found: Found) -> None:
    """``plot.png`` and ``plot.svg``. Raises MissingInput without matplotlib."""
    figure = draw(found)
    write_bytes(folder / "plot.png", png_of(figure, dpi=110))
    memory = io.BytesIO()
    figure.savefig(memory, format="svg", bbox_inches="tight", metadata={"Date": None})
    write_bytes(folder / "plot.svg", memory.getvalue())


def png_of(figure: Any, *, dpi: int) -> bytes:
    """The figure as a PNG."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png", bbox_inches="tight", dpi=dpi)
    return memory.getvalue()


def draw(found: Found) -> Any:
    """The figure: bars a variant, lines over the variants' ``at``, quality over cost, or losses over time."""
    settings = found["settings"]
    if settings["kind"] == "velocity_loss":
        return _losses(found)
    kinds = {"bars": _bars, "lines": _lines, "sizes": _sizes, "pareto": _pareto}
    return kinds[settings["plot"]](found)


def new_figure(rows: int, columns: int, *, height: float) -> tuple[Any, Any]:
    """A figure of panels ``height`` inches high, and its axes (rows, columns). Raises MissingInput without
    matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingInput("plots need matplotlib; pip install 'imax-dist[study]'") from error
    figure = Figure(figsize=(2.6 * columns + 1.2, height * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


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
                axis, f"{measure} ({_way(measure)})", where=f"{label}, n = {size['n']}" if not column else ""
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
        dress(axis, f"{measure} ({_way(measure)})")
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
        dress(axis, f"{measure} ({_way(measure)})")
    axes[0][0].legend(fontsize=6)
    return figure


def _pareto(found: Found) -> Any:
    """A row of panels a size, a panel a measure: quality over planned seconds, the front as a line."""
    measures = [name for name in shown_measures(found) if name != "planned" and _tells(found, name)][:_MOST]
    names = list(found["settings"]["variants"])
    figure, axes = new_figure(len(found["sizes"]), len(measures), height=2.9)
    for row, (label, size) in enumerate(found["sizes"].items()):
        costed = {k: size["variants"][n] for k, n in enumerate(names, 1) if "planned" in size["variants"][n]}
        for column, measure in enumerate(measures):
            points = {
                k: (stats["planned"]["mean"], stats[measure]["mean"])
                for k, stats in costed.items()
                if measure in stats
            }
            axis = axes[row][column]
            _numbered(axis, points)
            front = pareto_front(list(points.values()), measure)
            axis.plot(*zip(*front, strict=True), color=COLOURS[1], linewidth=0.8, zorder=0) if front else None
            title = f"{measure} ({_way(measure)})"
            dress(axis, title, where=f"{label}, n = {size['n']}" if not column else "")
    legend = "   ".join(f"{k} {name}" for k, name in enumerate(names, 1))
    figure.supxlabel(
        textwrap.fill(f"seconds a poster, predicted: FLUX.1-dev, one H100.   {legend}", 44 * len(measures)),
        fontsize=7,
    )
    return figure


def _tells(found: Found, measure: str) -> bool:
    """Whether a measure sets any two variants apart by more than a hundredth."""
    held = (
        [stats[measure]["mean"] for stats in size["variants"].values() if measure in stats]
        for size in found["sizes"].values()
    )
    return any(values and max(values) - min(values) > 0.01 for values in held)


def _numbered(axis: Any, points: Mapping[int, tuple[float, float]]) -> None:
    """Points over a logarithmic cost, each with its number; where there are none, so many words."""
    if not points:
        axis.text(0.5, 0.5, "not measured", ha="center", fontsize=SIZE, transform=axis.transAxes)
        axis.axis("off")
        return
    axis.plot(*zip(*points.values(), strict=True), ".", color=COLOURS[0], markersize=4)
    axis.margins(0.1)
    _plain_log(axis.xaxis)
    scale = axis.transScale + axis.transLimits
    panel = (2.2 * 72, 2.4 * 72)
    shown = {k: tuple(scale.transform(point) * panel) for k, point in points.items()}
    groups = gathered(shown)
    for label, offset in offsets(groups, panel).items():
        point = points[int(label.split()[0])]
        axis.annotate(label, point, fontsize=SIZE, xytext=offset, textcoords="offset points")


def _plain_log(x_axis: Any) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 in plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    x_axis.axes.set_xscale("log")
    x_axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
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


def curve(axis: Any, points: list[tuple[float, Any]], colour: str, label: str) -> None:
    """A line through the (x, mean, low and high) of ``points`` with a band of their intervals."""
    if not points:
        return
    xs = [x for x, _ in points]
    axis.plot(xs, [stats["mean"] for _, stats in points], color=colour, label=label, marker=".", markersize=4)
    low, high = ([stats[end] for _, stats in points] for end in ("low", "high"))
    axis.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)


def dress(axis: Any, title: str, *, where: str = "") -> None:
    """Title, the vertical axis's name, small ticks and no frame."""
    axis.set_title(title, fontsize=8)
    if where:
        axis.set_ylabel(where, fontsize=8)
    axis.tick_params(labelsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _way(measure: str) -> str:
    return {"high": "higher", "low": "lower", "zero": "near 0"}[ALL[measure].better]
