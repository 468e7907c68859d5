"""A canvas in scene coordinates, painted with anti-aliased shapes.

Scene coordinates: y runs down from 0 to 1 over the height of the whole scene, x in the same unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Colour = Array | tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """The window of the scene that is drawn: top left corner and height, in scene units."""

    left: float = 0.0
    top: float = 0.0
    height: float = 1.0


class Canvas:
    """(height, width, 3) float32 pixels in 0..255 and the scene coordinates of their centres."""

    def __init__(self, height: int, width: int, view: View) -> None:
        self.pixel = view.height / height  # side of a pixel in scene units
        self.y: Array = (view.top + (np.arange(height) + 0.5) * self.pixel).astype(np.float32)
        self.x: Array = (view.left + (np.arange(width) + 0.5) * self.pixel).astype(np.float32)
        self.image: Array = np.zeros((height, width, 3), np.float32)

    def window(self, left: float, top: float, right: float, bottom: float) -> Window:
        """The part of the canvas that the given box can touch (two pixels of margin)."""
        margin = 2 * self.pixel
        rows = slice(*np.searchsorted(self.y, [top - margin, bottom + margin]))
        columns = slice(*np.searchsorted(self.x, [left - margin, right + margin]))
        return Window(self, rows, columns)

    def whole(self) -> Window:
        """All of the canvas."""
        return Window(self, slice(0, len(self.y)), slice(0, len(self.x)))


class Window:
    """A rectangle of a canvas: coordinate rows and columns, and ways to paint."""

    def __init__(self, canvas: Canvas, rows: slice, columns: slice) -> None:
        self.pixel = canvas.pixel
        self.y: Array = canvas.y[rows, None]
        self.x: Array = canvas.x[None, columns]
        self._image = canvas.image[rows, columns]

    @property
    def empty(self) -> bool:
        """True where the box lies outside the canvas."""
        return self._image.size == 0

    def fill(self, distance: Array, colour: Colour, opacity: float = 1.0) -> None:
        """Paint where the signed distance is negative; the edge is one pixel of box filter."""
        self.blend(np.clip(0.5 - distance / self.pixel, 0, 1) * opacity, colour)

    def blend(self, coverage: Array, colour: Colour) -> None:
        """Mix ``colour``, (3,) or (rows, columns, 3), in by ``coverage`` in 0..1."""
        paint = np.asarray(colour, np.float32)
        self._image += np.broadcast_to(coverage, self._image.shape[:2])[..., None] * (paint - self._image)

    def sharpness(self, period: float) -> float:
        """How far a detail of this period shows: 0 under 3 pixels, 1 from 6 pixels on."""
        return float(np.clip(period / self.pixel / 3.0 - 1.0, 0, 1))
