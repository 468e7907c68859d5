"""Pictures as bands of rows, so that a print larger than memory can be read, changed and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.geometry import ImageSize

Band = npt.NDArray[Any]
"""(rows, width, channels): uint8 or uint16 over their full range, or float32 in [0, 1]."""

ROWS = 128
"""Rows of a band, unless a file's own tiles are higher."""
FULL_SCALE = {"u1": 255.0, "u2": 65_535.0, "f4": 1.0}


@dataclass(frozen=True)
class Bands:
    """A picture that is made row by row, each time ``read`` is called.

    ``bits`` is 8 or 16 for integers and 32 for floats.
    """

    size: ImageSize
    channels: int
    bits: int
    read: Callable[[], Iterator[Band]]

    def changed(
        self, change: Callable[[Band], Band], *, channels: int | None = None, bits: int | None = None
    ) -> Bands:
        """The same rows, each band passed through ``change``."""
        return replace(
            self,
            channels=self.channels if channels is None else channels,
            bits=self.bits if bits is None else bits,
            read=lambda: (change(band) for band in self.read()),
        )


def bands_of_array(pixels: Band) -> Bands:
    """A picture that is in memory, (height, width, channels)."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    return Bands(
        ImageSize(width, height),
        channels,
        bits,
        lambda: (pixels[top : top + ROWS] for top in range(0, height, ROWS)),
    )


def rebanded(bands: Bands, rows: int) -> Iterator[Band]:
    """The same picture in bands of exactly ``rows`` rows; the last may be lower."""
    held: list[Band] = []
    count = 0
    for band in bands.read():
        held.append(band)
        count += len(band)
        while count >= rows:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            yield joined[:rows]
            held = [joined[rows:]]
            count -= rows
    if count:
        yield np.concatenate(held)


def cropped(bands: Bands, *, left: int, top: int, size: ImageSize) -> Bands:
    """The window of ``size`` at (left, top)."""
    if (left, top) == (0, 0) and size == bands.size:
        return bands

    def read() -> Iterator[Band]:
        start = 0
        for band in bands.read():
            first, last = max(top - start, 0), min(top + size.height - start, len(band))
            if first < last:
                yield band[first:last, left : left + size.width]
            start += len(band)
            if start >= top + size.height:
                return

    return replace(bands, size=size, read=read)


def mirrored(bands: Bands, *, left: int, top: int, size: ImageSize) -> Bands:
    """Grown to ``size``: the picture at (left, top), and around it its own edges, mirrored.

    Margins must be narrower than the picture.
    """
    right, bottom = size.width - left - bands.size.width, size.height - top - bands.size.height

    def read() -> Iterator[Band]:
        above: list[Band] = []
        last: Band | None = None
        for band in bands.read():
            wide = np.pad(band, ((0, 0), (left, right), (0, 0)), mode="symmetric")
            last = (wide if last is None else np.concatenate([last, wide]))[-max(bottom, 1) :]
            if top and sum(map(len, above)) < top:
                above.append(wide)
                if sum(map(len, above)) < top:
                    continue
                wide = np.concatenate(above)
                yield np.ascontiguousarray(wide[:top][::-1])
            yield wide
        if bottom and last is not None:
            yield np.ascontiguousarray(last[::-1])

    return replace(bands, size=size, read=read)


def to_unit(band: Band) -> npt.NDArray[np.float32]:
    """Any band as floats in [0, 1]."""
    scale = FULL_SCALE[band.dtype.str[1:]]
    return band.astype(np.float32) if scale == 1.0 else band.astype(np.float32) * np.float32(1 / scale)


def framed(
    bands: Bands, *, left: int, top: int, size: ImageSize, fill: tuple[float, float, float] | None = None
) -> Bands:
    """The picture at (left, top) of a larger one of ``size``, as floats in [0, 1].

    Around it lies ``fill`` (red, green, blue in [0, 1]), or its own edges continued.
    """
    right, below = size.width - left - bands.size.width, size.height - top - bands.size.height
    if (left, top, right, below) == (0, 0, 0, 0):
        return bands

    def widened(band: Band) -> Band:
        unit = to_unit(band)
        if fill is None:
            return np.pad(unit, ((0, 0), (left, right), (0, 0)), mode="edge")
        wide = np.tile(np.asarray(fill, np.float32), (len(unit), size.width, 1))
        wide[:, left : left + unit.shape[1]] = unit
        return wide

    def read() -> Iterator[Band]:
        row: Band | None = None
        for band in bands.read():
            wide = widened(band)
            if row is None:
                yield from _repeated(wide[:1], top, fill)
            yield wide
            row = wide[-1:]
        if row is not None:
            yield from _repeated(row, below, fill)

    return replace(bands, size=size, bits=32, read=read)


def _repeated(row: Band, count: int, fill: tuple[float, float, float] | None) -> Iterator[Band]:
    """``count`` rows like ``row``, or of one colour, a band at a time."""
    line = row if fill is None else np.tile(np.asarray(fill, np.float32), (1, row.shape[1], 1))
    for first in range(0, count, ROWS):
        yield np.repeat(line, min(ROWS, count - first), axis=0)
