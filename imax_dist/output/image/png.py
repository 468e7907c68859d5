"""PNG of any height in bounded memory, 8 or 16 bits, with its recipe."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Bands, bands_of_array
from imax_dist.output.image.deflate import packed
from imax_dist.output.image.labels import Labels, hashed
from imax_dist.output.image.pixels import EightBit
from imax_dist.output.image.vips import Sink, rows_of_pieces
from imax_dist.output.image.xmp import packet

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SOFTWARE = b"imax-dist"
XMP_KEY = b"XML:com.adobe.xmp"
RECIPE_KEY = b"imax-recipe"
COLOURS = {3: 2, 4: 6}
"""Channels -> PNG's number for them; four are CMYK on their way into a PDF."""
PERCEPTUAL = 0
INCHES_PER_METRE = 1 / 0.0254
SRGB = b"sRGB", bytes([PERCEPTUAL])


def write_png(path: Path, image: EightBit | Bands, recipe: dict[str, Any]) -> None:
    """Write 8-bit sRGB, an array (H, W, 3) or bands, with the recipe as text.

    The same input gives the same file. Memory does not grow with the height of bands.
    """
    bands = image if isinstance(image, Bands) else bands_of_array(image)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(_poster_head(bands, recipe))
            _write_rows(file, bands)

    write_file(path, write)


def write_hashed_png(path: Path, bands: Bands, recipe: dict[str, Any], *, dpi: float | None = None) -> str:
    """The same with the hash of the pixels in the recipe, which is returned; bands are read once."""
    read, digest = hashed(bands)

    def head() -> bytes:
        return _poster_head(bands, {**recipe, "pixels_sha256": digest.text}, dpi)

    def write(temporary: Path) -> None:
        with temporary.open("r+b") as file:
            file.write(head())  # takes the room; the hash of no rows is as long as any
            _write_rows(file, read)
            file.seek(0)
            file.write(head())

    write_file(path, write)
    return digest.text


def _poster_head(bands: Bands, recipe: dict[str, Any], dpi: float | None = None) -> bytes:
    """All that comes before the rows; its length does not depend on the hash in ``recipe``."""
    chunks = [
        _header(bands),
        chunk(*SRGB),
        b"" if dpi is None else _resolution(dpi),
        chunk(b"tEXt", b"Software\0" + SOFTWARE),
        _packet(packet(recipe, media="image/png", whole=False).encode()),  # first: a prompt may look like one
        chunk(b"iTXt", RECIPE_KEY + b"\0\0\0\0\0" + json.dumps(recipe, ensure_ascii=False).encode()),
    ]
    return SIGNATURE + b"".join(chunks)


def write_print_png(path: Path, bands: Bands, labels: Labels) -> str:
    """Write the bands with profile and XMP; returns the hash of their pixels.

    Raises BadValue for CMYK, which PNG cannot hold, CannotWrite or NoPermission.
    """
    if bands.channels != 3:
        raise BadValue(f"{path.name}: PNG cannot hold CMYK; use tif or pdf, or an RGB profile")
    read, digest = hashed(bands)
    head = SIGNATURE + _header(bands) + _profile(labels) + _resolution(labels.sheet.dpi)
    head += chunk(b"tEXt", b"Software\0" + SOFTWARE)

    def write(temporary: Path) -> None:
        with temporary.open("r+b") as file:
            file.write(head + _packet(labels.draft))
            _write_rows(file, read)
            file.seek(len(head))
            file.write(_packet(labels.xmp(digest.text)))

    write_file(path, write)
    return digest.text


def write_plain_png(path: Path, image: EightBit) -> None:
    """Write (H, W, 3) sRGB bytes, their chunk sRGB and nothing else."""
    write_file(path, lambda temporary: _write_all(temporary, png_bytes(image)))


def png_bytes(image: EightBit) -> bytes:
    """(H, W, 3) sRGB bytes as a PNG in memory."""
    bands, memory = bands_of_array(image), io.BytesIO()
    memory.write(SIGNATURE + _header(bands) + chunk(*SRGB))
    _write_rows(memory, bands)
    return memory.getvalue()


def save_rows(bands: Bands, sink: Sink) -> None:
    """The rows as PNG (and a PDF with predictor 15) packs them: one zlib stream."""
    for piece in packed(bands):
        sink.write(piece)


def rows_of_stream(layout: Bands, pieces: Callable[[], Iterator[bytes]], *, where: str) -> Bands:
    """What ``save_rows`` packed: ``layout`` with its rows read from the zlib stream in ``pieces``."""

    def file() -> Iterator[bytes]:
        yield SIGNATURE + _header(layout)
        yield from (chunk(b"IDAT", piece) for piece in pieces())
        yield chunk(b"IEND", b"")

    return replace(layout, read=lambda: rows_of_pieces(file(), "pngload", where))


class _ImageData:
    """Writes pieces of the rows as IDAT chunks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, piece: bytes) -> None:
        self._file.write(chunk(b"IDAT", piece))


def _write_rows(file: BinaryIO, bands: Bands) -> None:
    save_rows(bands, _ImageData(file))
    file.write(chunk(b"IEND", b""))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content, checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _header(bands: Bands) -> bytes:
    size = bands.size
    return chunk(
        b"IHDR",
        struct.pack(">IIBBBBB", size.width, size.height, bands.bits, COLOURS[bands.channels], 0, 0, 0),
    )


def _profile(labels: Labels) -> bytes:
    name = labels.profile.name.encode("latin-1", "replace")[:79]
    return chunk(b"iCCP", name + b"\0\0" + zlib.compress(labels.profile.data))


def _resolution(dpi: float) -> bytes:
    """Pixels per metre, as whole numbers."""
    per_metre = round(dpi * INCHES_PER_METRE)
    return chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))


def _packet(xmp: bytes) -> bytes:
    return chunk(b"iTXt", XMP_KEY + b"\0\0\0\0\0" + xmp)


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def read_pixels(path: Path) -> EightBit:
    """The pixels of an image file as (H, W, 3) bytes. Raises MissingInput or BadManifest."""
    import numpy as np

    if not path.is_file():
        raise MissingInput(f"image {path} does not exist")
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadManifest(f"{path} is not a readable image: {error}") from error
