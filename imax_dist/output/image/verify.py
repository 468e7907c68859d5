"""Does a file still hold the pixels its recipe speaks of?"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import BadManifest
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.dither import with_bits
from imax_dist.output.image.jpeg import coded_hash
from imax_dist.output.image.labels import hash_of
from imax_dist.output.image.png import rows_of_stream
from imax_dist.output.image.provenance import read_recipe
from imax_dist.output.image.reader import require_file, samples_of

IMAGE = re.compile(rb"/Subtype /Image /Width (\d+) /Height (\d+) /BitsPerComponent (\d+)[^\n]*\n?stream\n")
STREAM_END = b"\nendstream\nendobj\n6 0 obj\n"
"""After the picture's stream; object 6 is its length."""
PIECE = 1 << 20
COLOURS = re.compile(rb"/Predictor 15 /Colors (\d)")


class VerifyResult(NamedTuple):
    """What the recipe states, what the file holds, and the recipe itself."""

    stated: str
    found: str
    recipe: dict[str, Any]

    @property
    def matches(self) -> bool:
        return self.stated == self.found


def verify(path: Path, *, recipe_file: Path | None = None) -> VerifyResult:
    """Compare ``path`` with its own recipe, or with the one in ``recipe_file``.

    Raises MissingInput, or BadManifest for a damaged file, one without a recipe, or a recipe without a hash.
    """
    require_file(path, "file")
    recipe = read_recipe(recipe_file or path)
    file = recipe.get("file")
    own = file.get("pixels_sha256") if isinstance(file, dict) else None
    stated = own or recipe.get("pixels_sha256")
    if not isinstance(stated, str):
        raise BadManifest(f"the recipe of {path} states no hash of its pixels; it cannot be checked")
    return VerifyResult(stated, HASHES[_start(path)](path), recipe)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(4)
    return next((mark for mark in HASHES if mark and start.startswith(mark)), b"")


def hash_of_samples(path: Path) -> str:
    """The hash of a picture's samples, as PNG and TIFF hold them."""
    bands = samples_of(path)
    return hash_of(bands if bands.bits <= 16 else with_bits(bands, 16))


def hash_of_jpeg(path: Path) -> str:
    """The hash of a JPEG without its labels."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return coded_hash(content, 0)


def hash_of_pdf(path: Path) -> str:
    """The hash of the picture in a PDF that this program wrote.

    Raises BadManifest if it was re-saved or cut off.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        head = IMAGE.search(content[:4096])
        if head is None:
            raise BadManifest(f"{path} was re-saved by another program; its picture cannot be checked")
        colours = COLOURS.search(head[0])
        if colours is None:
            return coded_hash(content, head.end())
        width, height, bits = (int(number) for number in head.groups())
        end = content.find(STREAM_END, head.end())
        if end < 0:
            raise BadManifest(f"{path} ends too early; the file was cut off")
        layout = Bands(ImageSize(width, height), int(colours[1]), bits, lambda: iter(()))
        return hash_of(rows_of_stream(layout, lambda: _pieces(content, head.end(), end), where=str(path)))


def _pieces(content: mmap.mmap, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, PIECE):
        yield content[at : min(at + PIECE, end)]


HASHES: dict[bytes, Callable[[Path], str]] = {
    b"%PDF": hash_of_pdf,
    b"\xff\xd8": hash_of_jpeg,
    b"": hash_of_samples,
}
"""How a file is hashed, by its first bytes."""
