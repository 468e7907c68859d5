"""Rows as PNG and PDF pack them: a filter byte and differences, then one zlib stream, made band by band.

Only the filters `left` and `up` are used, whichever gives the smaller sum in a row: NumPy can undo both
at once for a whole row, so that our own files are read back quickly, 16 bits included.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadManifest
from imax_dist.output.image.bands import ROWS, Band, Bands

LEFT, UP = 1, 2
PIECE = 1 << 20
LEVEL = 4

Bytes = npt.NDArray[np.uint8]


def packed(bands: Bands) -> Iterator[bytes]:
    """The zlib stream in pieces."""
    stream = zlib.compressobj(LEVEL)
    step = bands.channels * bands.bits // 8
    above = np.zeros((1, bands.size.width * step), np.uint8)
    for band in bands.read():
        rows = _big_endian(band)
        yield stream.compress(_filtered(rows, above, step).data)
        above = rows[-1:]
    yield stream.flush()


def unpacked(pieces: Iterator[bytes], *, width: int, height: int, channels: int, bits: int) -> Iterator[Band]:
    """The bands of a stream that ``packed`` made. Raises BadManifest if it is torn or has other filters."""
    step = channels * bits // 8
    length = width * step + 1
    above = np.zeros(length - 1, np.uint8)
    for block in _inflated(pieces, length * ROWS, length * height):
        rows = np.frombuffer(block, np.uint8).reshape(-1, length)
        out = np.empty((len(rows), length - 1), np.uint8)
        for line, row in zip(out, rows, strict=True):
            _undo(row[0], row[1:], above, line, step=step)
            above = line
        yield out.view(f">u{bits // 8}").astype(f"u{bits // 8}").reshape(-1, width, channels)


def _big_endian(band: Band) -> Bytes:
    kind = band.dtype.newbyteorder(">")
    return np.ascontiguousarray(band.astype(kind, copy=False)).view(np.uint8).reshape(len(band), -1)


def _filtered(rows: Bytes, above: Bytes, step: int) -> Bytes:
    left = rows.copy()
    left[:, step:] -= rows[:, :-step]
    up = rows - np.concatenate([above, rows[:-1]])
    out = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    costs = [abs(part.view(np.int8)).view(np.uint8).sum(axis=1, dtype=np.int64) for part in (left, up)]
    upper = costs[1] < costs[0]
    out[:, 0] = np.where(upper, UP, LEFT)
    out[~upper, 1:] = left[~upper]
    out[upper, 1:] = up[upper]
    return out


def _undo(kind: int, row: Bytes, above: Bytes, out: Bytes, *, step: int) -> None:
    if kind == UP:
        np.add(row, above, out=out)
    elif kind == LEFT:
        np.add.accumulate(row.reshape(-1, step), axis=0, out=out.reshape(-1, step))
    elif kind == 0:
        out[:] = row
    else:
        raise BadManifest(f"the picture's rows are packed by filter {kind}, which is not of this program")


def _inflated(pieces: Iterator[bytes], block: int, total: int) -> Iterator[bytes]:
    """Exactly ``total`` bytes in blocks of ``block``; the last may be smaller."""
    stream = zlib.decompressobj()
    held, seen = bytearray(), 0
    try:
        for piece in pieces:
            while piece and not stream.eof:
                held += stream.decompress(piece, PIECE)
                piece = stream.unconsumed_tail
                while len(held) >= block and seen + block <= total:
                    yield bytes(held[:block])
                    del held[:block]
                    seen += block
            if stream.eof or seen + len(held) >= total:
                break
    except zlib.error as error:
        raise BadManifest(f"the picture's data are torn: {error}") from error
    if seen + len(held) < total:
        raise BadManifest("the picture's data end too early; the file was cut off")
    if seen < total:
        yield bytes(held[: total - seen])
