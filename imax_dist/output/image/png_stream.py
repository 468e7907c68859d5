"""PNG of any height in bounded memory, 8 or 16 bits: Pillow holds the whole picture and has no 16-bit RGB."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imax_dist.errors import BadManifest, BadValue
from imax_dist.geometry import ImageSize
from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.deflate import PIECE, packed, unpacked
from imax_dist.output.image.labels import Labels, hashed

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SOFTWARE = b"imax-dist rows"
"""Marks files whose rows are packed by ``deflate.packed`` and read back by it."""
XMP_KEY = b"XML:com.adobe.xmp"
RGB = 2
INCHES_PER_METRE = 1 / 0.0254


def write_print_png(path: Path, bands: Bands, labels: Labels) -> str:
    """Write the bands; returns the hash of their pixels.

    Raises BadValue for CMYK, which PNG cannot hold, CannotWrite or NoPermission.
    """
    if bands.channels != 3:
        raise BadValue(f"{path.name}: PNG cannot hold CMYK; use tif or pdf, or an RGB profile")
    read, digest = hashed(bands)

    def write(temporary: Path) -> None:
        with temporary.open("r+b") as file:
            file.write(SIGNATURE + _header(bands, labels))
            packet_at = file.tell()
            file.write(packet_chunk(labels.draft))
            write_rows(file, read)
            file.seek(packet_at)
            file.write(packet_chunk(labels.xmp(digest.text)))

    write_file(path, write)
    return digest.text


def write_rows(file: BinaryIO, bands: Bands) -> None:
    """The picture's own chunks, and the end."""
    for piece in packed(bands):
        if piece:
            file.write(chunk(b"IDAT", piece))
    file.write(chunk(b"IEND", b""))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content, checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def own_layout(path: Path) -> tuple[ImageSize, int] | None:
    """Size and bits of an RGB PNG that this program wrote; None for other PNGs (use a decoder)."""
    with path.open("rb") as file:
        head = file.read(33)
        rest = file.read(4096)
    if len(head) < 33 or head[:8] != SIGNATURE or b"Software\0" + SOFTWARE not in rest:
        return None
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    return (ImageSize(width, height), bits) if colour == RGB else None


def read_own(path: Path, size: ImageSize, bits: int) -> Bands:
    """The bands of a PNG that this program wrote; reading raises BadManifest if it is torn."""
    return Bands(
        size,
        3,
        bits,
        lambda: unpacked(_image_data(path), width=size.width, height=size.height, channels=3, bits=bits),
    )


def _header(bands: Bands, labels: Labels) -> bytes:
    name = labels.profile.name.encode("latin-1", "replace")[:79]
    profile = name + b"\0\0" + zlib.compress(labels.profile.data)
    return b"".join(
        [
            header_chunk(bands),
            resolution_chunk(labels.sheet.dpi),
            chunk(b"tEXt", b"Software\0" + SOFTWARE),
            chunk(b"iCCP", profile),
        ]
    )


def header_chunk(bands: Bands) -> bytes:
    """Size and bits of RGB rows."""
    size = bands.size
    return chunk(b"IHDR", struct.pack(">IIBBBBB", size.width, size.height, bands.bits, RGB, 0, 0, 0))


def resolution_chunk(dpi: float) -> bytes:
    """Pixels per metre, as whole numbers."""
    per_metre = round(dpi * INCHES_PER_METRE)
    return chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))


def packet_chunk(xmp: bytes) -> bytes:
    """An XMP packet."""
    return chunk(b"iTXt", XMP_KEY + b"\0\0\0\0\0" + xmp)


def _image_data(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while True:
            head = file.read(8)
            if len(head) < 8:
                raise BadManifest(f"{path} ends too early; the file was cut off")
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return
            if kind == b"IDAT":
                yield from _pieces(file, length)
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = file.read(min(length, PIECE))
        if not piece:
            return
        length -= len(piece)
        yield piece
