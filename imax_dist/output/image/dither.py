"""Fewer bits without banding: each sample is moved by a fixed pattern of noise before it is rounded.

The noise lies inside half a step, so a value that the file can hold exactly stays as it is, and any
other becomes its two neighbours in the right proportion. The pattern depends on the place in the
picture alone: the same picture gives the same file, whatever the bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from imax_dist.output.image.bands import FULL_SCALE, Band, Bands, to_unit

PERIOD = 256
KEY = 20_241_010
GUARD = 1 / 64
"""How far inside half a step the noise stays, so that float rounding cannot tip an exact value."""


def with_bits(bands: Bands, bits: int) -> Bands:
    """The picture in ``bits`` (8 or 16) per sample; unchanged if it has them already."""
    if bands.bits == bits:
        return bands

    def read() -> Iterator[Band]:
        row = 0
        for band in bands.read():
            yield quantised(band, bits, first_row=row)
            row += len(band)

    return replace(bands, bits=bits, read=read)


def quantised(band: Band, bits: int, *, first_row: int = 0) -> Band:
    """Integers of ``bits`` for a band whose top is row ``first_row`` of its picture."""
    kind = f"u{bits // 8}"
    scaled = to_unit(band)
    scaled *= np.float32(FULL_SCALE[kind])
    rows, width, channels = band.shape
    noise = _pattern(channels)
    for top in range(0, rows, PERIOD):
        part = scaled[top : top + PERIOD]
        lines = np.roll(noise, -((first_row + top) % PERIOD), axis=0)[: len(part)]
        for left in range(0, width, PERIOD):
            columns = part[:, left : left + PERIOD]
            columns += lines[:, : columns.shape[1]]
    np.floor(scaled, out=scaled)
    return scaled.clip(0, FULL_SCALE[kind]).astype(kind)


def _pattern(channels: int) -> npt.NDArray[np.float32]:
    """(PERIOD, PERIOD, channels): 0.5 for the rounding, and the noise."""
    uniform = np.random.Generator(np.random.Philox(key=KEY)).random((PERIOD, PERIOD, channels))
    return (0.5 + (uniform - 0.5) * (1 - 2 * GUARD)).astype(np.float32)
