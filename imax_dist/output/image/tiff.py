"""TIFF: tiles, 8 or 16 bits, RGB or CMYK, zlib with a predictor; BigTIFF where 4 GiB would not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Band, Bands, rebanded
from imax_dist.output.image.labels import Labels, hashed

TILE = 512
BIG = 3_900_000_000
"""Bytes of samples from which BigTIFF is used: older readers know only the small form."""
XMP_TAG = 700
QUEUED = 64 << 20


def write_tiff(path: Path, bands: Bands, labels: Labels) -> str:
    """Write the bands; returns the hash of their pixels. Raises CannotWrite or NoPermission."""
    read, digest = hashed(bands)

    def write(temporary: Path) -> None:
        with tifffile.TiffWriter(temporary, bigtiff=_samples(bands) > BIG) as writer:
            writer.write(_tiles(read), **_tags(bands, labels))
        _overwrite_packet(temporary, labels.xmp(digest.text))

    write_file(path, write)
    return digest.text


def _tags(bands: Bands, labels: Labels) -> dict[str, Any]:
    draft = labels.draft
    shape = (bands.size.height, bands.size.width, bands.channels)
    return {
        "shape": shape,
        "dtype": f"uint{bands.bits}",
        "tile": (TILE, TILE),
        "photometric": "rgb" if bands.channels == 3 else "separated",
        "planarconfig": "contig",
        "compression": "zlib",
        "compressionargs": {"level": 6 if _samples(bands) < BIG / 16 else 1},
        "predictor": 2,
        "resolution": (labels.sheet.dpi, labels.sheet.dpi),
        "resolutionunit": "INCH",
        "iccprofile": labels.profile.data,
        "software": "imax-dist",
        "metadata": None,
        "extratags": [(XMP_TAG, 1, len(draft), draft, True)],
        "maxworkers": 2,
        "buffersize": QUEUED,
    }


def _tiles(bands: Bands) -> Iterator[Band]:
    """Row by row of tiles, each tile full; what lies beyond the picture repeats its edge."""
    for band in rebanded(bands, TILE):
        for left in range(0, bands.size.width, TILE):
            tile = band[:, left : left + TILE]
            missing = ((0, TILE - tile.shape[0]), (0, TILE - tile.shape[1]), (0, 0))
            yield np.pad(tile, missing, mode="edge")


def _samples(bands: Bands) -> int:
    return bands.size.area * bands.channels * bands.bits // 8


def _overwrite_packet(path: Path, xmp: bytes) -> None:
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[XMP_TAG]
        offset, length = tag.valueoffset, tag.count
    assert length == len(xmp), "a packet's length does not depend on the hash"
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(xmp)
