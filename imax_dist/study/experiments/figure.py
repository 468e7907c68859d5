"""A figure, and what every plot of a study shares. matplotlib's object interface: no global figure."""

from __future__ import annotations

import io
from typing import Any

from imax_dist.errors import MissingInput
from imax_dist.study.experiments.measures import ALL

COLOURS = ("#3b6fb6", "#d1793b", "#4a9a5b", "#a44a8a", "#7a7a7a", "#b6a23b")


def png_of(figure: Any, *, dpi: int) -> bytes:
    """The figure as a PNG."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png", bbox_inches="tight", dpi=dpi)
    return memory.getvalue()


def new_figure(rows: int, columns: int, *, height: float, width: float = 2.6) -> tuple[Any, Any]:
    """A figure of panels of so many inches, and its axes (rows, columns). Raises MissingInput without
    matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingInput("plots need matplotlib; pip install 'imax-dist[study]'") from error
    figure = Figure(figsize=(width * columns + 1.2, height * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


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


def direction(measure: str) -> str:
    """Which values of a measure are better, for a panel's title."""
    return {"high": "higher", "low": "lower", "zero": "near 0"}[ALL[measure].better]
