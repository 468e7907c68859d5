"""Whether all the pixels that a TIFF's directory names lie in the file.

libvips reads a TIFF that was cut off as far as it goes and leaves the rest black (8.18 tells of it in a
buffer that all threads share), so the ends of its strips and tiles are compared with the end of the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

from imax_dist.errors import BadManifest

PIECES = ((273, 279), (324, 325))
"""Tags of where strips, or tiles, begin and how long they are."""


def require_whole(path: Path) -> None:
    """Raise BadManifest for a TIFF that ends before its pixels do."""
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
