"""From the decoder's floats to the integers of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imax_dist.output.image.bands import Band, Bands

if TYPE_CHECKING:
    from torch import Tensor

EightBit = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def to_eight_bit(pixels: Tensor) -> EightBit:
    """(H, W, 3) floats in [0, 1] to bytes, rounded to nearest."""
    return eight_bit(pixels.numpy())


def eight_bit(band: Band) -> EightBit:
    """The same for an array."""
    scaled = (band.astype(np.float64) * 255.0).round()
    return scaled.clip(0, 255).astype(np.uint8)


def rounded(bands: Bands) -> Bands:
    """The same for floats in bands, without dither: what a plain PNG holds and ``pixels_sha256`` is of."""
    return bands.changed(eight_bit, bits=8)
