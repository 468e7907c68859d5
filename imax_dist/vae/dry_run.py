"""The walk without its numbers: which maps are stored and where, the bytes held at most, elements made."""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.vae.attention import Projections
from imax_dist.vae.autoencoder import Autoencoder, Half
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.rows import LazyRows, RowMap
from imax_dist.vae.share import RowShare
from imax_dist.vae.store import Scratch, Tier, row_bytes
from imax_dist.vae.walk import Walk
from imax_dist.vae.workspace import Finish, Workspace


class CountedRows(RowMap):
    """A map that takes ``size`` bytes of a tier, or none of memory, and holds nothing."""

    def __init__(self, rows: RowMap, tier: Tier | None, size: int) -> None:
        self.share, self.like = rows.share, rows.like
        self._tier, self._size = tier, size
        if tier is not None:
            tier.used += size

    def read(self, top: int, bottom: int) -> Tensor:
        raise AssertionError(f"rows {top} to {bottom} of a dry run")

    def forget(self, row: int) -> None:
        """Counted when it is closed."""

    def close(self) -> None:
        if self._tier is not None:
            self._tier.used -= self._size
            self._tier = None


class DryRun(Workspace):
    """Takes the decisions of a Workspace on maps of the meta device, on one rank, in microseconds each."""

    def __init__(self, scratch: Scratch, sizes: BlockSizes) -> None:
        super().__init__(scratch, sizes)
        self.elements = 0
        """Of all maps that this rank computes and stores, or computes once for their moments."""
        self.most_used = 0
        """Bytes of the first tier that are counted as taken, at most."""
        self.peak = 0
        """Bytes of the first tier that are really held at most: sources are freed as a map grows."""

    def store(self, rows: RowMap) -> RowMap:
        self._count(rows)
        size = rows.share.most * row_bytes(rows.like)
        first, tier = self.scratch.tiers[0], self.scratch.tier_for(size)
        before = first.used
        counted = CountedRows(rows, tier, size)
        taken = first.used
        rows.close()
        freed, held = taken - first.used, taken - before
        self.most_used = max(self.most_used, taken)
        growing = max(freed, held) + min(self.sizes.segment_bytes, freed, held)
        self.peak = max(self.peak, before - freed + growing)
        return counted

    def store_or_recompute(self, rows: RowMap, *, reserve: int = 0) -> RowMap:
        if self.has_room(rows, reserve):
            return self.store(rows)
        self._count(rows)
        return rows

    def attend(self, rows: RowMap, projections: Projections, finish: Finish) -> RowMap:
        del projections, finish  # of a map like ``rows``
        return self.store(LazyRows(rows.share, rows.like, rows.read, closes=(rows,)))

    def _count(self, rows: RowMap) -> None:
        share, (_, width, channels) = rows.share, rows.like.shape
        self.elements += (share.bottom - share.top) * width * channels


def dry_run(
    network: Autoencoder,
    half: Half,
    share: RowShare,
    *,
    width: int,
    dtype: torch.dtype,
    scratch: Scratch,
    sizes: BlockSizes,
) -> tuple[DryRun, RowMap]:
    """One half from a map of ``share`` rows and ``width`` columns on: the count, and the last map."""
    counted = DryRun(scratch, sizes)
    channels = network.placed(half)[0].conv.inputs
    start = map_of(share, width=width, channels=channels, dtype=dtype)
    return counted, Walk({}, counted).through(network.layers(half), start)


def map_of(
    share: RowShare, *, width: int, channels: int, dtype: torch.dtype, closes: tuple[RowMap, ...] = ()
) -> LazyRows:
    """A map to be counted."""
    like = torch.empty((0, width, channels), dtype=dtype, device="meta")

    def make(top: int, bottom: int) -> Tensor:
        raise AssertionError(f"rows {top} to {bottom} of a dry run")

    return LazyRows(share, like, make, closes=closes)
