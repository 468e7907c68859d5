"""Last-mile scaling in bands: Lanczos with three lobes, wider when a picture gets smaller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imax_dist.geometry import SMALLEST_SIDE, ImageSize
from imax_dist.output.image.bands import ROWS, Band, Bands, to_unit
from imax_dist.output.image.dither import with_bits

LOBES = 3.0


class Taps(NamedTuple):
    """For each new sample the old ones it is made of, (new, taps), and their weights, rows adding to 1."""

    places: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float32]


def lanczos_taps(old: int, new: int) -> Taps:
    """Samples sit amid their pixels; beyond an edge is nothing, and the rest weighs more."""
    scale = old / new
    reach = LOBES * max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale - 0.5
    first = np.ceil(centre - reach).astype(np.intp)
    index = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)
    distance = (index - centre[:, None]) / max(scale, 1.0)
    inside = (abs(distance) < LOBES) & (index >= 0) & (index < old)
    weight = np.where(inside, np.sinc(distance) * np.sinc(distance / LOBES), 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    return Taps(index.clip(0, old - 1), weight.astype(np.float32))


def scaled(bands: Bands, size: ImageSize) -> Bands:
    """The picture at ``size``, as floats in [0, 1]."""
    across = lanczos_taps(bands.size.width, size.width)
    down = lanczos_taps(bands.size.height, size.height)
    return Bands(size, bands.channels, 32, lambda: _scaled_rows(bands, across, down))


def _scaled_rows(bands: Bands, across: Taps, down: Taps) -> Iterator[Band]:
    """Old rows are made wide as they come and kept while a new row still needs them."""
    source = (_across(to_unit(band), across) for band in bands.read())
    window = next(source)
    start = 0
    for top in range(0, len(down.places), ROWS):
        index, weight = down.places[top : top + ROWS], down.weight[top : top + ROWS]
        while start + len(window) <= index.max():
            window = np.concatenate([window, next(source)])
        surplus = int(index.min()) - start
        window, start = window[surplus:], start + surplus
        rows = np.zeros((len(index), *window.shape[1:]), np.float32)
        for tap in range(index.shape[1]):
            rows += weight[:, tap, None, None] * window[index[:, tap] - start]
        yield rows.clip(0.0, 1.0)


def _across(band: npt.NDArray[np.float32], taps: Taps) -> npt.NDArray[np.float32]:
    wide = np.zeros((len(band), len(taps.places), band.shape[2]), np.float32)
    for tap in range(taps.places.shape[1]):
        wide += taps.weight[None, :, tap, None] * band[:, taps.places[:, tap]]
    return wide


def small_copy(bands: Bands, side: int) -> npt.NDArray[np.uint8]:
    """The picture in memory, 8 bits, its longer side at most ``side`` px."""
    longest = max(bands.size.width, bands.size.height)
    if longest > side:
        width, height = (
            max(SMALLEST_SIDE, round(n * side / longest)) for n in (bands.size.width, bands.size.height)
        )
        bands = scaled(bands, ImageSize(width, height))
    return np.concatenate(list(with_bits(bands, 8).read()))
