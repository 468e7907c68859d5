"""Rows kept for later: in memory as long as there is room, then in files that no crash leaves behind."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from imax_dist.errors import CannotWrite


@dataclass
class Tier:
    """Memory of one device that features may take, and how much of it they hold now."""

    device: torch.device
    limit: int
    used: int = 0


class Place(NamedTuple):
    """Where a store is: ``needed`` bytes of a tier, or files in ``folder``."""

    tier: Tier | None
    needed: int
    folder: Path


class Scratch:
    """Room for feature maps: ``tiers`` in order (GPU, host), then temp files in ``folder``.

    Decisions count what the rank with most rows needs, so that all ranks take the same ones.
    """

    def __init__(self, tiers: list[Tier], folder: Path | None = None) -> None:
        self.tiers = tiers
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder

    def tier_for(self, needed: int) -> Tier | None:
        """The first tier with room for ``needed`` bytes; None means files."""
        return next((tier for tier in self.tiers if tier.used + needed <= tier.limit), None)

    def on_host(self) -> Scratch:
        """Only what lies in the host's memory or in files."""
        return Scratch([tier for tier in self.tiers if tier.device.type == "cpu"], self.folder)

    def open(self, *, like: Tensor, rows: int, most: int, segment_bytes: int) -> RowStore:
        """A store for ``rows`` rows like those of ``like`` (0, width, channels); ``most`` of any rank."""
        place = Place(self.tier_for(most * row_bytes(like)), most * row_bytes(like), self.folder)
        return RowStore(like, rows, place, segment_bytes=segment_bytes)


def row_bytes(like: Tensor) -> int:
    """Bytes of one row."""
    return like.element_size() * like.shape[1] * like.shape[2]


class RowStore:
    """``rows`` rows, appended from the top, read in any range, given up from the top.

    Made of segments, so that what was given up is free at once. File segments have no name: the system
    frees them when they are closed, also when the process is killed.
    """

    def __init__(self, like: Tensor, rows: int, place: Place, *, segment_bytes: int) -> None:
        self.like = like
        self.rows = rows
        self.written = 0
        self.in_memory = place.tier is not None
        self._tier, self._needed, self._folder = place
        self._step = max(1, segment_bytes // row_bytes(like))
        self._segments: dict[int, Tensor | BinaryIO] = {}
        if place.tier is not None:
            place.tier.used += place.needed

    def append(self, rows: Tensor) -> None:
        """The next rows. Raises CannotWrite if the disk is full."""
        while len(rows):
            index, at = divmod(self.written, self._step)
            count = min(len(rows), self._step - at)
            segment = self._segments.get(index)
            if segment is None:
                segment = self._segments[index] = self._new_segment(index)
            if isinstance(segment, Tensor):
                segment[at : at + count] = rows[:count]
            else:
                self._write(segment, at, rows[:count])
            self.written += count
            rows = rows[count:]

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) on the device of ``like``; may share memory with the store: do not change it."""
        parts = []
        while top < bottom:
            index, at = divmod(top, self._step)
            count = min(bottom - top, self._step - at)
            segment = self._segments[index]
            if isinstance(segment, Tensor):
                parts.append(segment[at : at + count])
            else:
                parts.append(self._read(segment, at, count))
            top += count
        if not parts:
            return self.like
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.like.device)

    def forget(self, row: int) -> None:
        """Rows above ``row`` will not be read again."""
        for index in [i for i in self._segments if (i + 1) * self._step <= row]:
            self._drop(index)

    def close(self) -> None:
        """Free everything; closing again does nothing."""
        for index in list(self._segments):
            self._drop(index)
        if self._tier is not None:
            self._tier.used -= self._needed
            self._tier = None

    def _drop(self, index: int) -> None:
        segment = self._segments.pop(index)
        if not isinstance(segment, Tensor):
            segment.close()

    def _new_segment(self, index: int) -> Tensor | BinaryIO:
        rows = min(self._step, self.rows - index * self._step)
        if self._tier is not None:
            return self.like.new_empty((rows, *self.like.shape[1:]), device=self._tier.device)
        try:
            return tempfile.TemporaryFile(dir=self._folder, buffering=0, prefix="imax-")  # type: ignore[return-value]
        except OSError as error:
            raise self._failed(error) from error

    def _write(self, file: BinaryIO, row: int, rows: Tensor) -> None:
        content = memoryview(rows.cpu().contiguous().view(torch.uint8).numpy().data).cast("B")
        place = row * row_bytes(self.like)
        try:
            while len(content):
                count = os.pwrite(file.fileno(), content, place)
                place, content = place + count, content[count:]
        except OSError as error:
            raise self._failed(error) from error

    def _read(self, file: BinaryIO, row: int, count: int) -> Tensor:
        rows = torch.empty((count, *self.like.shape[1:]), dtype=self.like.dtype)
        content = memoryview(rows.view(torch.uint8).numpy().data).cast("B")
        place = row * row_bytes(self.like)
        while len(content):
            got = os.preadv(file.fileno(), [content], place)
            assert got > 0, "only rows that were written are read"
            place, content = place + got, content[got:]
        return rows

    def _failed(self, error: OSError) -> CannotWrite:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        return CannotWrite(
            f"the picture's features do not fit in memory and {self._folder} cannot hold them: {reason}; "
            "set TMPDIR to a folder with more room, or let them take more memory (parallel: vae_memory_gib)"
        )
