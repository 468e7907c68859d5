"""Which kind of picture a file is, by its first bytes, and whether a TIFF is whole.

No other loader of libvips is ever called.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from imax_dist.errors import BadManifest

PIECES = ((273, 279), (324, 325))
"""Tags of where strips, or tiles, begin and how long they are."""
ISO_MEDIA = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"mif1": "HEIC",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
}


class Format(NamedTuple):
    """A kind of file: libvips' loader, its name for people, whether it is decoded row by row."""

    loader: str
    name: str
    by_rows: bool = False


def format_of(path: Path) -> Format:
    """The format of a picture. Raises BadManifest for a file that is none we read."""
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        raise BadManifest(f"{path} is empty")
    if start.startswith(b"%PDF"):
        raise BadManifest(f"{path} is a PDF, a finished print; give the tif or png it was made from")
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format("pngload", "PNG", by_rows=True)
    if start.startswith(b"\xff\xd8\xff"):
        return Format("jpegload", "JPEG", by_rows=True)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return Format("tiffload", "TIFF", by_rows=True)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return Format("webpload", "WebP")
    if start[4:8] == b"ftyp" and start[8:] in ISO_MEDIA:
        return Format("heifload", ISO_MEDIA[start[8:]])
    if start[:4] == b"GIF8":
        return Format("gifload", "GIF")
    raise BadManifest(
        f"{path} is not a readable picture: its first bytes are not those of PNG, JPEG, TIFF, WebP, AVIF, "
        "HEIC or GIF; save it as one of these"
    )


def require_whole_tiff(path: Path) -> None:
    """Raise BadManifest for a TIFF that ends before its pixels do, by its directory.

    libvips reads it as far as it goes and leaves the rest black (8.18 tells of it in a buffer that all
    threads share).
    """
    from PIL import Image, TiffImagePlugin

    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(16)
            directory = TiffImagePlugin.ImageFileDirectory_v2(head[:8] if head[2] not in (43,) else head)
            file.seek(directory.next)
            directory.load(file)
            ends = [
                start + length
                for begins, lengths in PIECES
                for start, length in zip(directory.get(begins, ()), directory.get(lengths, ()), strict=False)
            ]
    except (OSError, ValueError, SyntaxError, TypeError, struct.error, Image.DecompressionBombError):
        return  # a directory that Pillow does not read; libvips says what it can
    if ends and max(ends) > size:
        raise BadManifest(
            f"{path} cannot be read to its end: it has {size} bytes, and its pixels would end at {max(ends)}"
        )
