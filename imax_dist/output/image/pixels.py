"""From the decoder's floats to the integers of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imax_dist.output.image.bands import Band, Bands

if TYPE_CHECKING:
    from torch import Tensor

EightBit = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
BLOCK = 1 << 15
"""Samples at a time: their float64 values stay in a core's cache."""


def to_eight_bit(pixels: Tensor) -> EightBit:
    """(H, W, 3) floats in [0, 1] to bytes, rounded to nearest."""
    return eight_bit(pixels.numpy())


def eight_bit(band: Band) -> EightBit:
    """The same for an array."""
    flat = np.ascontiguousarray(band).reshape(-1)
    made, scratch = np.empty(flat.shape, np.uint8), np.empty(min(BLOCK, flat.size))
    for first in range(0, flat.size, BLOCK):
        part = flat[first : first + BLOCK]
        scaled = scratch[: part.size]
        np.multiply(part, 255.0, out=scaled, dtype=np.float64)
        np.rint(scaled, out=scaled)
        made[first : first + BLOCK] = np.clip(scaled, 0, 255, out=scaled)
    return made.reshape(band.shape)  # type: ignore[return-value]


def rounded(bands: Bands) -> Bands:
    """The same for floats in bands, without dither: what a plain PNG holds and ``pixels_sha256`` is of."""
    return bands.changed(eight_bit, bits=8)
