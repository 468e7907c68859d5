"""Signed distances (negative inside) of the shapes the scenes are made of; all in scene units."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Point = tuple[float, float]


def circle(x: Array, y: Array, centre: Point, radius: float) -> Array:
    """Distance to a disc."""
    away: Array = np.hypot(x - centre[0], y - centre[1])
    return away - radius


def box(x: Array, y: Array, centre: Point, half: Point) -> Array:
    """Distance to an upright rectangle (the inner bound: exact inside and along the sides)."""
    inside: Array = np.maximum(np.abs(x - centre[0]) - half[0], np.abs(y - centre[1]) - half[1])
    return inside


def polygon(x: Array, y: Array, points: list[Point]) -> Array:
    """Distance to a convex polygon, its points clockwise as seen (y runs down)."""
    distance: Array | None = None
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        dx, dy = x1 - x0, y1 - y0
        edge = (dy * (x - x0) - dx * (y - y0)) / float(np.hypot(dx, dy))
        distance = edge if distance is None else np.maximum(distance, edge)
    assert distance is not None
    return distance


def segment(x: Array, y: Array, ends: tuple[Point, Point], radius: float) -> Array:
    """Distance to a round-ended stroke."""
    (x0, y0), (x1, y1) = ends
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    away: Array = np.hypot(x - x0 - along * dx, y - y0 - along * dy)
    return away - radius


def lines(u: Array, period: float, width: float, pixel: float) -> Array:
    """Coverage in 0..1 of thin lines every ``period`` along ``u``, anti-aliased."""
    from_line = np.abs(u / period - np.round(u / period)) * period
    cover: Array = np.clip((0.5 * width - from_line) / pixel + 0.5, 0, 1)
    return cover * min(1.0, width / pixel)
