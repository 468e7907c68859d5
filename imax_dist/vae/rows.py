"""Feature maps row by row: each rank holds its share of the rows and reads a few beyond it.

A map is (height, width, channels), channels last as the files and the fastest kernels want them. It is
stored, or computed again each time a band of it is read (see workspace.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.vae.halo import exchange_rows
from imax_dist.vae.moments import Moments, over_ranks
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import RowStore

REACH = 2
"""Rows beyond its own that a rank holds: two 3 x 3 convolutions in a row."""


class RowMap(ABC):
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


class LazyRows(RowMap):
    """A map that ``make`` computes each time; ``forgets`` and ``closes`` pass on what it no longer needs."""

    def __init__(
        self,
        share: RowShare,
        like: Tensor,
        make: Callable[[int, int], Tensor],
        *,
        forgets: Callable[[int], None] | None = None,
        closes: tuple[RowMap, ...] = (),
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


class SharedRows(RowMap):
    """A map that two read: a level's layers, which let it go first, and what is added to their result."""

    def __init__(self, rows: RowMap) -> None:
        self.share, self.like, self.moments, self.widest = rows.share, rows.like, rows.moments, rows.widest
        self._rows, self._readers = rows, 2

    def read(self, top: int, bottom: int) -> Tensor:
        return self._rows.read(top, bottom)

    def forget(self, row: int) -> None:
        """The other reader still wants it."""

    def close(self) -> None:
        self._readers -= 1
        if self._readers == 0:
            self._rows.close()


class StoredRows(RowMap):
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
