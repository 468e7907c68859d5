"""TIFF: tiles, 8 or 16 bits, RGB or CMYK, zlib with a predictor; BigTIFF where 4 GiB would not do."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.labels import Labels, hashed
from imax_dist.output.image.paper import MM_PER_INCH
from imax_dist.output.image.vips import library, save_file

TILE = 512
BIG = 3_900_000_000
"""Bytes of samples from which BigTIFF is used: older readers know only the small form."""
LEVEL = 6


def write_tiff(path: Path, bands: Bands, labels: Labels) -> str:
    """Write the bands; returns the hash of their pixels. Raises CannotWrite or NoPermission."""
    read, digest = hashed(bands)
    draft = labels.draft

    def labelled(image: Any) -> Any:
        image = image.copy(xres=labels.sheet.dpi / MM_PER_INCH, yres=labels.sheet.dpi / MM_PER_INCH)
        blob = library().GValue.blob_type
        image.set_type(blob, "icc-profile-data", labels.profile.data)
        image.set_type(blob, "xmp-data", draft)
        return image

    def write(temporary: Path) -> None:
        save_file(read, labelled, lambda image: image.tiffsave(str(temporary), **_options(bands)))
        _overwrite(temporary, draft, labels.xmp(digest.text))

    write_file(path, write)
    return digest.text


def _options(bands: Bands) -> dict[str, Any]:
    return {
        "compression": "deflate",
        "level": LEVEL,
        "predictor": "horizontal",
        "tile": True,
        "tile_width": _tile(bands.size.width),
        "tile_height": _tile(bands.size.height),
        "resunit": "inch",
        "bigtiff": bands.size.area * bands.channels * bands.bits // 8 > BIG,
    }


def _tile(side: int) -> int:
    """TILE, or less for a small picture: libvips reads none whose tiles are much larger than itself."""
    return min(TILE, -(-side // 16) * 16)


def _overwrite(path: Path, draft: bytes, xmp: bytes) -> None:
    """Put the packet that knows the hash in the draft's place."""
    assert len(draft) == len(xmp), "a packet's length does not depend on the hash"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.rfind(draft)
        assert at >= 0, "libvips wrote the packet as it was given"
        content[at : at + len(xmp)] = xmp
