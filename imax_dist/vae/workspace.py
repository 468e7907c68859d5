"""What the walk does with its maps: store them where there is room, band by band, or make them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.vae.attention import Projections, frame_attention
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.moments import Moments, over_ranks
from imax_dist.vae.rows import RowMap, StoredRows
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import RowStore, Scratch, row_bytes

Finish = Callable[[Tensor, int, int], Tensor]
"""(attention of rows [top, bottom), top, bottom) -> these rows of the map."""


def _nothing(elements: int) -> None:
    """For a walk that nobody watches."""


def bands(rows: RowMap, sizes: BlockSizes, share: RowShare | None = None) -> Iterator[tuple[int, int]]:
    """This rank's rows, or those of another rank's ``share``, a few at a time."""
    share = rows.share if share is None else share
    step = sizes.rows_of(max(row_bytes(rows.like), rows.widest))
    for top in range(share.top, share.bottom, step):
        yield top, min(top + step, share.bottom)


class Workspace:
    """All ranks must call its methods in the same order."""

    def __init__(
        self, scratch: Scratch, sizes: BlockSizes, *, computed: Callable[[int], None] = _nothing
    ) -> None:
        """``computed`` is called with the elements of every finished band; it may raise to end the walk."""
        self.scratch = scratch
        self.sizes = sizes
        self._computed = computed

    def store(self, rows: RowMap) -> RowMap:
        """Compute the map once and store it; what only it needed is freed on the way."""
        store = self._open(rows)

        moments, failure = self._computed_once(rows, store)
        rows.close()
        return StoredRows(rows.share, store, moments, failure=failure)

    def store_or_recompute(self, rows: RowMap, *, reserve: int = 0) -> RowMap:
        """Store the map if memory has room for it and ``reserve`` more bytes, else know its moments only.

        Computing a convolution again takes less time than a disk does.
        """
        if self.has_room(rows, reserve):
            return self.store(rows)
        moments, failure = self._computed_once(rows, None)
        rows.moments = over_ranks(moments, rows.share, width=rows.like.shape[1], failure=failure)
        return rows

    def attend(self, rows: RowMap, projections: Projections, finish: Finish) -> RowMap:
        """Attention of every pixel of the map to every other, stored; ``rows`` is closed."""
        store, (_, width, channels) = self._open(rows), rows.like.shape
        moments, failure = Moments.none(channels, rows.like.device), None
        attended = frame_attention(projections, rows.share, width=width, channels=channels, sizes=self.sizes)
        for top, bottom, heads in attended:
            if failure is None:  # else only the other ranks need this one, for its keys
                try:
                    band = finish(heads, top, bottom)
                    store.append(band)
                    moments = moments.merged(Moments.of(band))
                    self._computed(band.numel())
                except ImaxError as error:
                    failure = error
        rows.close()
        return StoredRows(rows.share, store, moments, failure=failure)

    def has_room(self, rows: RowMap, reserve: int) -> bool:
        """Whether some memory takes the map; the same on every rank."""
        return self.scratch.tier_for(rows.share.most * row_bytes(rows.like) + reserve) is not None

    def _open(self, rows: RowMap) -> RowStore:
        share = rows.share
        own, size = share.bottom - share.top, self.sizes.segment_bytes
        return self.scratch.open(like=rows.like, rows=own, most=share.most, segment_bytes=size)

    def _computed_once(self, rows: RowMap, store: RowStore | None) -> tuple[Moments, ImaxError | None]:
        """Every band, to the ``store`` if there is one; moments of all, or why not all were made."""
        moments = Moments.none(rows.like.shape[2], rows.like.device)
        try:
            for top, bottom in bands(rows, self.sizes):
                band = rows.read(top, bottom)
                if store is not None:
                    store.append(band)
                    rows.forget(bottom)
                moments = moments.merged(Moments.of(band))
                self._computed(band.numel())
        except ImaxError as error:
            return moments, error
        return moments, None
