"""Deep-zoom pyramids (DZI): a picture as tiles at every halving, made in one pass and bounded memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imax_dist.geometry import ImageSize
from imax_dist.output.atomic import write_error
from imax_dist.output.image.bands import Band, Bands
from imax_dist.output.image.dither import with_bits
from imax_dist.output.own_files import require_real_folder

TILE = 510
OVERLAP = 1
QUALITY = 88


def write_pyramid(folder: Path, bands: Bands) -> dict[str, Any]:
    """Write ``folder/<level>/<column>_<row>.jpg``; returns the tile source as a viewer takes it.

    The top level is the whole picture, each one below half of it, down to one pixel.
    """
    levels = math.ceil(math.log2(max(bands.size.width, bands.size.height)))
    level: _Level | None = None
    for number in range(levels + 1):
        level = _Level(folder / str(number), _level_size(bands.size, levels - number), below=level)
    assert level is not None
    for band in with_bits(bands, 8).read():
        level.add(band)
    level.close()
    size = {"Width": bands.size.width, "Height": bands.size.height}
    return {"Format": "jpg", "Overlap": OVERLAP, "TileSize": TILE, "Size": size}


def _level_size(size: ImageSize, halvings: int) -> tuple[int, int]:
    """(width, height) after that many halvings, rounded up."""
    return -(-size.width // 2**halvings), -(-size.height // 2**halvings)


class _Level:
    """One size of the picture: keeps the rows that a row of tiles still needs, hands pairs down halved."""

    def __init__(self, folder: Path, size: tuple[int, int], *, below: _Level | None) -> None:
        require_real_folder(folder).mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.width, self.height = size
        self.below = below
        self._rows: Band = np.empty((0, self.width, 3), np.uint8)
        self._first = 0
        self._odd: Band = np.empty((0, self.width, 3), np.uint8)
        self._tile_row = 0

    def add(self, band: Band) -> None:
        """The next rows of this level."""
        self._rows = np.concatenate([self._rows, band])
        self._write(last=False)
        self._hand_down(band, last=False)

    def close(self) -> None:
        """No more rows come."""
        self._write(last=True)
        self._hand_down(self._rows[:0], last=True)
        if self.below is not None:
            self.below.close()

    def _write(self, *, last: bool) -> None:
        while True:
            top = max(self._tile_row * TILE - OVERLAP, 0)
            bottom = min((self._tile_row + 1) * TILE + OVERLAP, self.height)
            end = self._first + len(self._rows)
            if end < bottom or self._tile_row * TILE >= self.height:
                assert not last or self._tile_row * TILE >= self.height, "rows are missing"
                return
            self._write_row(self._rows[top - self._first : bottom - self._first])
            self._tile_row += 1
            keep_from = max(self._tile_row * TILE - OVERLAP, 0)
            self._rows = self._rows[max(keep_from - self._first, 0) :]
            self._first = min(keep_from, end)

    def _write_row(self, rows: Band) -> None:
        for column, start in enumerate(range(0, self.width, TILE)):
            left, right = max(start - OVERLAP, 0), min(start + TILE + OVERLAP, self.width)
            picture = Image.fromarray(np.ascontiguousarray(rows[:, left:right]))
            tile = self.folder / f"{column}_{self._tile_row}.jpg"
            try:
                with tile.open("xb") as file:  # never through a link
                    picture.save(file, format="JPEG", quality=QUALITY)
            except OSError as error:
                raise write_error(tile, error) from error

    def _hand_down(self, band: Band, *, last: bool) -> None:
        if self.below is None:
            return
        rows = np.concatenate([self._odd, band])
        even = len(rows) if last else len(rows) // 2 * 2
        self._odd = rows[even:]
        if even:
            self.below.add(halved(rows[:even]))


def halved(rows: Band) -> npt.NDArray[np.uint8]:
    """Means of 2 x 2 pixels; an odd last row or column is its own pair."""
    height, width = rows.shape[:2]
    even = np.pad(rows, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    total = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
