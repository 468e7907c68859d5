"""Pictures in bands through libvips, both ways, in bounded memory (DECISIONS 68)."""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from imax_dist.errors import BadManifest
from imax_dist.output.image.bands import ROWS, Band, Bands, rebanded

FORMATS = {"uchar": 8, "ushort": 16, "float": 32}
"""libvips' name for a sample -> its bits."""
SPACES = {(1, 8): "b-w", (3, 8): "srgb", (4, 8): "cmyk", (1, 16): "grey16", (3, 16): "rgb16", (4, 16): "cmyk"}
BIG_TIFF, SHORT, LONG8 = b"II+\0\x08\0\0\0", 3, 16


class Sink(Protocol):
    """Where an encoder's bytes go: a file, or something that looks at them on their way."""

    def write(self, piece: bytes, /) -> object: ...


@functools.cache
def library() -> Any:
    """The pyvips module; results of operations are not kept, as every picture passes once.

    Its messages quote damaged files, whose bytes are not always UTF-8: pyvips would raise on those.
    """
    import pyvips
    from pyvips import error

    pyvips.cache_set_max(0)
    pyvips._to_string = error._to_string = _text
    return pyvips


def _text(message: Any) -> Any:
    """What libvips says, as pyvips takes it, with a mark for each byte that is not UTF-8."""
    from pyvips import ffi

    if message == ffi.NULL:
        return "NULL"
    found = ffi.string(message)
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def rows(image: Any, where: str) -> Iterator[Band]:
    """The rows of a libvips image. Raises BadManifest, with ``where`` at the start, if it is damaged."""
    pyvips = library()
    kind = "f4" if image.format == "float" else f"u{FORMATS[image.format] // 8}"
    region = pyvips.Region.new(image)
    for top in range(0, image.height, ROWS):
        count = min(ROWS, image.height - top)
        try:
            data = region.fetch(0, top, image.width, count)
        except pyvips.Error as error:
            raise BadManifest(f"{where} cannot be read to its end: {reason(error)}") from error
        yield np.ndarray((count, image.width, image.bands), kind, data)


def rows_of_pieces(pieces: Iterator[bytes], loader: str, where: str) -> Iterator[Band]:
    """The rows of a file that comes in pieces. Raises BadManifest, with ``where`` at the start."""
    pyvips = library()
    source, held = pyvips.SourceCustom(), bytearray()

    def read(count: int) -> bytes:
        while len(held) < count and (piece := next(pieces, b"")):
            held.extend(piece)
        taken = bytes(held[:count])
        del held[:count]
        return taken

    source.on_read(read)
    try:
        load = getattr(pyvips.Image, f"{loader}_source")
        image = load(source, access="sequential", fail_on="truncated")
    except pyvips.Error as error:
        raise BadManifest(f"{where} cannot be read to its end: {reason(error)}") from error
    yield from rows(image, where)


def save_jpeg(bands: Bands, sink: Sink, **options: Any) -> None:
    """Encode ``bands`` of 8 bits into ``sink``, without any metadata.

    What reading the bands or writing to the sink raises comes out as it is.
    """
    pyvips = library()
    stream = _Stream(bands)
    target = pyvips.TargetCustom()
    target.on_write(stream.guarded(lambda piece: _written(sink, piece), 0))
    image = stream.image(pyvips)
    run(stream, lambda: image.jpegsave_target(target, keep="none", **options))


def save_file(bands: Bands, change: Callable[[Any], Any], write: Callable[[Any], object]) -> None:
    """Let ``write`` save ``change`` of the image that ``bands`` are, where a format needs a whole file."""
    stream = _Stream(bands)
    image = stream.image(library())
    run(stream, lambda: write(change(image)))


def run(stream: _Stream, work: Callable[[], object]) -> None:
    """``work``; the first Python error in a callback goes before what libvips says of it.

    Raises OSError where libvips fails.
    """
    pyvips = library()
    try:
        work()
    except pyvips.Error as error:
        if stream.error is None:
            full = "No space left" in error.detail
            raise OSError(errno.ENOSPC if full else None, reason(error)) from error
    if stream.error is not None:
        raise stream.error


def reason(error: Any) -> str:
    """What libvips said, in one line, without its internal names."""
    lines = [line for line in (error.detail or error.message).splitlines() if line.strip()]
    return lines[0].split(": ", 1)[-1].strip() if lines else "no reason given"


def _written(sink: Sink, piece: bytes) -> int:
    sink.write(piece)
    return len(piece)


class _Stream:
    """Bands as an uncompressed BigTIFF, made while libvips reads it: the one raw format it takes so."""

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self.error: BaseException | None = None
        self._head = _head(bands)
        self._at = 0
        self._pieces: Iterator[bytes] | None = None
        self._held = memoryview(b"")
        self._read = len(self._head)
        self._source: Any = None

    def image(self, pyvips: Any) -> Any:
        """As a libvips image, to be read once from top to bottom."""
        self._source = source = pyvips.SourceCustom()  # libvips calls into it until all is saved
        source.on_read(self.guarded(self._next, b""))
        source.on_seek(self.guarded(self._seek, -1))
        image = pyvips.Image.tiffload_source(source, access="sequential")
        return image.copy(interpretation=SPACES[self.bands.channels, self.bands.bits])

    def guarded(self, call: Callable[..., Any], failed: Any) -> Callable[..., Any]:
        """``call`` for libvips, which cannot pass on an exception: it is kept, and ``failed`` returned."""

        def guard(*arguments: Any) -> Any:
            try:
                return failed if self.error else call(*arguments)
            except BaseException as error:
                self.error = error
                return failed

        return guard

    def _next(self, count: int) -> bytes:
        if self._at < len(self._head):
            piece = self._head[self._at : self._at + count]
        else:
            assert self._at == self._read, "libvips reads an uncompressed TIFF from top to bottom"
            piece = self._samples(count)
            self._read += len(piece)
        self._at += len(piece)
        return piece

    def _samples(self, count: int) -> bytes:
        if self._pieces is None:
            self._pieces = (np.ascontiguousarray(band).tobytes() for band in rebanded(self.bands, ROWS))
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._held = memoryview(piece)
        taken, self._held = self._held[:count], self._held[count:]
        return bytes(taken)

    def _seek(self, offset: int, whence: int) -> int:
        size = self.bands.size
        row = size.width * self.bands.channels * self.bands.bits // 8
        self._at = offset + (0, self._at, len(self._head) + row * size.height)[whence]
        return self._at


def _head(bands: Bands) -> bytes:
    """Header, directory and the places of all strips; the samples follow."""
    size, channels, bits = bands.size, bands.channels, bands.bits
    row = size.width * channels * bits // 8
    strips = range(0, size.height, ROWS)
    tags: dict[int, tuple[int, list[int]]] = {
        256: (SHORT if size.width < 65_536 else LONG8, [size.width]),
        257: (LONG8, [size.height]),
        258: (SHORT, [bits] * channels),
        259: (SHORT, [1]),
        262: (SHORT, [{1: 1, 3: 2, 4: 5}[channels]]),
        273: (LONG8, [0 for _ in strips]),
        277: (SHORT, [channels]),
        278: (LONG8, [ROWS]),
        279: (LONG8, [min(ROWS, size.height - top) * row for top in strips]),
    }
    start = len(_packed(tags))
    tags[273] = (LONG8, [start + top * row for top in strips])
    return _packed(tags)


def _packed(tags: dict[int, tuple[int, list[int]]]) -> bytes:
    entries, after = b"", b""
    begin = 16 + 8 + 20 * len(tags) + 8
    for tag, (kind, values) in tags.items():
        raw = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'Q'}", *values)
        place = raw.ljust(8, b"\0") if len(raw) <= 8 else struct.pack("<Q", begin + len(after))
        after += raw if len(raw) > 8 else b""
        entries += struct.pack("<HHQ", tag, kind, len(values)) + place
    return BIG_TIFF + struct.pack("<QQ", 16, len(tags)) + entries + struct.pack("<Q", 0) + after
