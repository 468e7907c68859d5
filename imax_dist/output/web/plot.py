"""Small plots as SVG text, drawn in the page's own colours."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

WIDTH, ROW, LABEL = 640, 24, 150


def bars(values: Mapping[str, float], *, unit: str) -> str:
    """One horizontal bar a name, its value at the end."""
    most = max(values.values(), default=0.0) or 1.0
    room = WIDTH - LABEL - 90
    parts = []
    for row, (name, value) in enumerate(values.items()):
        y = row * ROW
        width = room * value / most
        parts.append(_text(LABEL - 8, y + 16, name, anchor="end"))
        parts.append(
            f'<rect class="bar" x="{LABEL}" y="{y + 4}" width="{max(width, 1):.1f}" height="{ROW - 8}"/>'
        )
        parts.append(_text(LABEL + width + 6, y + 16, f"{value:.3g} {unit}"))
    return _figure(parts, len(values) * ROW + 4)


def histogram(samples: Sequence[float], *, unit: str, bins: int = 24) -> str:
    """How often each value occurs, from the least to the largest."""
    low, high = min(samples), max(samples)
    span = (high - low) or max(abs(high), 1e-9)
    counts = [0] * bins
    for sample in samples:
        counts[min(int((sample - low) / span * bins), bins - 1)] += 1
    height, most, step = 120, max(counts), (WIDTH - 20) / bins
    parts = [
        f'<rect class="bar" x="{10 + n * step:.1f}" y="{height - height * count / most:.1f}" '
        f'width="{step - 1:.1f}" height="{height * count / most:.1f}"/>'
        for n, count in enumerate(counts)
    ]
    parts.append(f'<line class="axis" x1="10" y1="{height}" x2="{WIDTH - 10}" y2="{height}"/>')
    parts.append(_text(10, height + 18, f"{low:.3g} {unit}"))
    parts.append(_text(WIDTH - 10, height + 18, f"{high:.3g} {unit}", anchor="end"))
    parts.append(_text(WIDTH / 2, height + 18, f"{len(samples)} steps", anchor="middle"))
    return _figure(parts, height + 26)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _figure(parts: list[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
