"""What a print file says about its pixels, and their hash as they are written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from imax_dist.output.image.bands import Band, Bands
from imax_dist.output.image.paper import Sheet
from imax_dist.output.image.profile import PRINTER, Profile
from imax_dist.output.image.xmp import UNKNOWN


@dataclass(frozen=True)
class Labels:
    """``xmp(hash)`` is the packet for pixels of that hash; its length does not depend on the hash.

    ``sheet`` has the resolution, and for a PDF the boxes. The last four are of PDF and JPEG only.
    """

    sheet: Sheet
    profile: Profile
    xmp: Callable[[str], bytes]
    title: str = "poster"
    output_intent: Profile | None = None
    crop_marks: bool = False
    quality: int = 95
    lossless: bool = False
    moment: datetime = datetime(2024, 10, 10, tzinfo=UTC)
    """Written as the time a PDF was made."""

    @property
    def press(self) -> Profile | None:
        """The printing condition of a PDF/X-4: the output intent if it is a printer's or press's, or None."""
        intent = self.output_intent or self.profile
        return intent if intent.kind == PRINTER else None

    @property
    def draft(self) -> bytes:
        """The packet before the hash is known."""
        return self.xmp(UNKNOWN)


class PixelHash:
    """SHA-256 of height, width, channels, type and samples row by row (little-endian), as they pass."""

    def __init__(self, bands: Bands) -> None:
        size = f"{bands.size.height}x{bands.size.width}x{bands.channels}"
        self._digest = hashlib.sha256(f"{size} uint{bands.bits}\n".encode())

    def update(self, band: Band) -> None:
        """Take in the next rows."""
        self._digest.update(np.ascontiguousarray(band.astype(band.dtype.newbyteorder("<"), copy=False)).data)

    @property
    def text(self) -> str:
        return self._digest.hexdigest()


def hash_of(bands: Bands) -> str:
    """The hash of all rows."""
    digest = PixelHash(bands)
    for band in bands.read():
        digest.update(band)
    return digest.text


def hashed(bands: Bands) -> tuple[Bands, PixelHash]:
    """``bands``, to be read once, with a hash that grows as they are."""
    digest = PixelHash(bands)

    def read() -> Iterator[Band]:
        for band in bands.read():
            digest.update(band)
            yield band

    return replace(bands, read=read), digest
