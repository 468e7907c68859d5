"""A picture's rows as the one zlib stream of a PNG or PDF, packed by several threads (DECISIONS 110)."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from imax_dist.output.image.bands import Band, Bands, rebanded

HEADER = b"\x78\x5e"
"""Deflate with a window of 32 KiB."""
WINDOW = 32_768
PIECE = 1 << 20
"""Bytes of rows that one thread packs at a time."""
LEVEL = 4
THREADS = 8
"""At most; a host's other cores serve other gangs."""
SUB = 1
"""PNG's filter: each sample less the one on its left."""
BASE = 65_521
"""Of Adler-32, RFC 1950."""


class _Packed(NamedTuple):
    data: bytes
    checksum: int
    length: int
    """Of the rows before packing."""


def packed(bands: Bands) -> Iterator[bytes]:
    """The zlib stream of rows of 8 or 16 bits after PNG's filter "sub", piece by piece.

    The same bytes for any number of threads: a piece knows the end of the one before, and ends on a byte.
    """
    yield HEADER
    checksum = 1
    threads = min(THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[_Packed]] = deque()
        before = b""
        for rows in _pieces(bands):
            running.append(pool.submit(_pack, rows, before))
            before = rows[-WINDOW:]
            if len(running) > threads:
                done = running.popleft().result()
                checksum = _joined(checksum, done)
                yield done.data
        for waiting in running:
            checksum = _joined(checksum, waiting.result())
            yield waiting.result().data
    yield zlib.compressobj(LEVEL, zlib.DEFLATED, -15).flush() + checksum.to_bytes(4, "big")


def _pieces(bands: Bands) -> Iterator[bytes]:
    row = 1 + bands.size.width * bands.channels * bands.bits // 8
    for band in rebanded(bands, max(1, PIECE // row)):
        yield _filtered(band).tobytes()


def _filtered(band: Band) -> Band:
    """(rows, 1 + bytes of a row): the filter's number and the differences; of 16 bits the high byte first."""
    whole = np.ascontiguousarray(band, band.dtype.newbyteorder(">"))
    samples = whole.view(np.uint8).reshape(len(band), -1)
    step = band.shape[2] * band.dtype.itemsize
    rows = np.empty((len(band), 1 + samples.shape[1]), np.uint8)
    rows[:, 0] = SUB
    rows[:, 1 : 1 + step] = samples[:, :step]
    np.subtract(samples[:, step:], samples[:, :-step], out=rows[:, 1 + step :])
    return rows


def _pack(rows: bytes, before: bytes) -> _Packed:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15, zdict=before)
    data = packer.compress(rows) + packer.flush(zlib.Z_SYNC_FLUSH)
    return _Packed(data, zlib.adler32(rows), len(rows))


def _joined(checksum: int, piece: _Packed) -> int:
    """Adler-32 of what came before and ``piece``, from those of both."""
    low = (checksum & 0xFFFF) + (piece.checksum & 0xFFFF) - 1
    high = (checksum >> 16) + (piece.checksum >> 16) + piece.length * ((checksum & 0xFFFF) - 1)
    return high % BASE << 16 | low % BASE
