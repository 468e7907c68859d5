"""Feature maps row by row: bands on one rank, shares over many, convolutions exact across every edge.

A map is (height, width, channels), channels last as the files and the fastest kernels want them. It
is stored, or made anew each time a band of it is read; ``keep`` stores it, ``settle`` if there is room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.vae.halo import exchange_rows
from imax_dist.vae.moments import Moments, over_ranks
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import RowStore, Scratch, row_bytes

REACH = 2
"""Rows beyond its own that a rank holds: two 3 x 3 convolutions in a row."""
BAND_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""About what is worked on at a time: on a CPU within its caches, on a GPU enough to fill it."""
FEWEST_ROWS = 16


class Rows(ABC):
    """A map of which this rank reads its own rows and REACH more on either side.

    ``like`` (0, width, channels) has device and dtype; ``moments`` are the whole map's, once known.
    """

    share: RowShare
    like: Tensor
    moments: Moments | None = None
    widest: int = 0
    """Bytes of a row of the map this one is made of, where that is wider: it decides how high a band is."""

    @abstractmethod
    def read(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) of the map, (rows, width, channels); not to be changed in place."""

    @abstractmethod
    def forget(self, row: int) -> None:
        """Rows above ``row`` will not be read again."""

    @abstractmethod
    def close(self) -> None:
        """Nothing will be read again."""


class LazyRows(Rows):
    """A map that ``make`` computes each time; ``forgets`` and ``closes`` pass on what it no longer needs."""

    def __init__(
        self,
        share: RowShare,
        like: Tensor,
        make: Callable[[int, int], Tensor],
        *,
        forgets: Callable[[int], None] | None = None,
        closes: tuple[Rows, ...] = (),
        widest: int = 0,
    ) -> None:
        self.share, self.like, self.widest = share, like, widest
        self._make, self._forgets, self._closes = make, forgets, closes

    def read(self, top: int, bottom: int) -> Tensor:
        return self._make(top, bottom) if top < bottom else self.like

    def forget(self, row: int) -> None:
        if self._forgets is not None:
            self._forgets(row)

    def close(self) -> None:
        for source in self._closes:
            source.close()


class StoredRows(Rows):
    """A map of which each rank has stored its own rows, and holds the REACH next to them."""

    def __init__(
        self, share: RowShare, store: RowStore, moments: Moments, *, failure: ImaxError | None = None
    ) -> None:
        """All ranks must come here: edges and moments are exchanged, or one rank's ``failure``."""
        self.share, self.like = share, store.like
        width = store.like.shape[1]
        self.moments = over_ranks(moments, share, width=width, failure=failure)
        self._store = store
        self._above = self._below = store.like
        if share.ranks > 1:
            self._above, self._below = exchange_rows(self._own, share, reach=REACH, like=store.like)

    def read(self, top: int, bottom: int) -> Tensor:
        first, last = self.share.top, self.share.bottom
        if first <= top and bottom <= last:
            return self._own(top, bottom)
        above = self._above[len(self._above) - (first - top) :] if top < first else self.like
        below = self._below[: bottom - last] if bottom > last else self.like
        return torch.cat([above, self._own(max(top, first), min(bottom, last)), below])

    def forget(self, row: int) -> None:
        self._store.forget(row - self.share.top)

    def close(self) -> None:
        self._store.close()

    def _own(self, top: int, bottom: int) -> Tensor:
        return self._store.read(top - self.share.top, bottom - self.share.top)


def bands(rows: Rows, share: RowShare | None = None) -> Iterator[tuple[int, int]]:
    """This rank's rows, or those of another rank's ``share``, a few at a time."""
    share = rows.share if share is None else share
    step = max(FEWEST_ROWS, BAND_BYTES[rows.like.device.type] // max(row_bytes(rows.like), rows.widest))
    for top in range(share.top, share.bottom, step):
        yield top, min(top + step, share.bottom)


def keep(rows: Rows, scratch: Scratch) -> StoredRows:
    """Compute the map once and store it; what only it needed is freed on the way."""
    share = rows.share
    store = scratch.open(like=rows.like, rows=share.bottom - share.top, most=share.most)
    moments = Moments.none(rows.like.shape[2], rows.like.device)
    failure: ImaxError | None = None
    try:
        for top, bottom in bands(rows):
            band = rows.read(top, bottom)
            store.append(band)
            moments = moments.merged(Moments.of(band))
            rows.forget(bottom)
            scratch.computed(band)
    except ImaxError as error:
        failure = error
    rows.close()
    return StoredRows(share, store, moments, failure=failure)


def settle(rows: Rows, scratch: Scratch, *, reserve: int = 0) -> Rows:
    """Store the map if memory has room for it and ``reserve`` more bytes, else know its moments only.

    Computing a convolution again takes less time than a disk does.
    """
    share = rows.share
    if scratch.tier_for(share.most * row_bytes(rows.like) + reserve) is not None:
        return keep(rows, scratch)
    moments = Moments.none(rows.like.shape[2], rows.like.device)
    for top, bottom in bands(rows):
        band = rows.read(top, bottom)
        moments = moments.merged(Moments.of(band))
        scratch.computed(band)
    rows.moments = over_ranks(moments, share, width=rows.like.shape[1])
    return rows


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    stride: int = 1,
) -> Tensor:
    """A convolution of (rows, width, channels); ``pad`` zeros (left, right, top, bottom)."""
    picture = x.unsqueeze(0).permute(0, 3, 1, 2)  # with strides that torch knows as channels last
    left, right, top, bottom = pad
    if left == right and top == bottom:
        result = F.conv2d(picture, weight, bias, padding=(top, left), stride=stride)
    elif left == right:
        result = F.conv2d(F.pad(picture, (0, 0, top, bottom)), weight, bias, padding=(0, left), stride=stride)
    else:
        result = F.conv2d(F.pad(picture, pad), weight, bias, stride=stride)
    return result.permute(0, 2, 3, 1).squeeze(0).contiguous()


def window3(rows: Rows, top: int, bottom: int) -> tuple[Tensor, tuple[int, int]]:
    """What a 3 x 3 convolution needs for rows [top, bottom), and the zero rows above and below it."""
    height = rows.share.height
    first, last = max(top - 1, 0), min(bottom + 1, height)
    return rows.read(first, last), (first - (top - 1), bottom + 1 - last)


def upsampled3(rows: Rows, weight: Tensor, bias: Tensor | None, *, top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of: every pixel doubled in both directions, then a 3 x 3 convolution.

    Doubled pixels stand under two taps at once, so that each of the four places of an output pixel is a 2 x 2
    convolution of the source whose taps are sums of the nine: the same numbers with 4/9 of the work.
    """
    start, end = top // 2, (bottom + 1) // 2
    source, (over, under) = window3(rows, start, end)
    padded = F.pad(source, (0, 0, 1, 1, over, under))
    count, width = end - start, source.shape[1]
    result = source.new_empty((count, 2, width, 2, weight.shape[0]))
    for row in (0, 1):
        for column in (0, 1):
            taps = _joined(_joined(weight, 2, row), 3, column)
            part = padded[row : row + count + 1, column : column + width + 1]
            result[:, row, :, column] = convolved(part, taps, bias)
    doubled = result.reshape(2 * count, 2 * width, -1)
    return doubled[top - 2 * start : bottom - 2 * start]


def _joined(weight: Tensor, dim: int, place: int) -> Tensor:
    """Three taps as two: the last two fall on one pixel at a pair's first place, else the first two."""
    first, second, third = weight.to(torch.promote_types(weight.dtype, torch.float32)).unbind(dim)
    pair = (first, second + third) if place == 0 else (first + second, third)
    return torch.stack(pair, dim).to(weight.dtype)


def downsampled3(rows: Rows, weight: Tensor, bias: Tensor | None, *, top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of a 3 x 3 convolution of stride 2, one zero at the right and below only."""
    last = min(2 * bottom + 1, rows.share.height)
    return convolved(rows.read(2 * top, last), weight, bias, pad=(0, 1, 0, 2 * bottom + 1 - last), stride=2)
