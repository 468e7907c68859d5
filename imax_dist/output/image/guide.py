"""A picture of the user's in a poster: opened, cut or padded to the poster's shape, read at its own size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import Bands, cropped, framed, to_unit
from imax_dist.output.image.reader import WHITE, as_srgb, open_picture, require_file
from imax_dist.output.image.reader import Picture as Opened
from imax_dist.output.image.resample import scaled
from imax_dist.output.image.settings import Fit, parse_colour

Picture = npt.NDArray[np.float32]
"""(height, width, 3) in [0, 1]."""


@dataclass(frozen=True)
class Placement:
    """How a picture fills what a poster renders; each size is that of all so far, centred on one another."""

    picture: ImageSize
    window: ImageSize
    """What is left of the picture."""
    canvas: ImageSize
    """With background around it: the poster's shape."""
    scaled: ImageSize
    """The canvas, made smaller if it has more pixels than the poster."""
    size: ImageSize
    """Its edges continued to what the poster renders: the reference of the first pass."""

    def sentence(self, poster: ImageSize) -> str:
        """What is cut away or added, for people; empty if nothing is."""
        if self.window != self.picture:
            return (
                f"{self.picture} was cropped to {self.window}, the shape of {poster}; fit pad keeps all of it"
            )
        if self.canvas != self.picture:
            return f"{self.picture} was padded to {self.canvas}, the shape of {poster}"
        return ""


def placed(picture: ImageSize, poster: ImageSize, rendered: ImageSize, *, fit: Fit) -> Placement:
    """Where a picture of this size goes in a ``poster`` cut from what is ``rendered``.

    Raises BadValue if ``fit`` is exact and the shapes differ by a pixel or more.
    """
    cut_width = min(picture.width, round(picture.height * poster.width / poster.height))
    cut_height = min(picture.height, round(picture.width * poster.height / poster.width))
    window = canvas = picture
    if (cut_width, cut_height) != (picture.width, picture.height):
        if fit == "exact":
            raise BadValue(
                f"the picture is {picture}, but the poster {poster}, and fit is exact; ask for a size of its "
                "shape, or let it be cropped (fit crop) or padded (fit pad)"
            )
        if fit == "crop":
            window = canvas = ImageSize(cut_width, cut_height)
        else:
            canvas = ImageSize(
                max(picture.width, round(picture.height * poster.width / poster.height)),
                max(picture.height, round(picture.width * poster.height / poster.width)),
            )
    smaller = poster if canvas.area > poster.area else canvas
    return Placement(picture, window, canvas, smaller, _continued(smaller, poster, rendered))


def _continued(size: ImageSize, poster: ImageSize, rendered: ImageSize) -> ImageSize:
    """What a picture of ``size`` stands for in ``rendered``, to the nearest of its own pixels."""
    return ImageSize(
        size.width + _edge(rendered.width - poster.width, size.width / poster.width),
        size.height + _edge(rendered.height - poster.height, size.height / poster.height),
    )


def _edge(surplus: int, scale: float) -> int:
    return round(surplus * scale)


def open_guide(path: Path, *, background: str | None = None) -> Opened:
    """The file opened, from its header alone; alpha is to be laid on ``background``.

    Raises MissingInput or BadManifest for a file that is not there or no picture, BadValue for no colour.
    """
    require_file(path, "guide")
    return open_picture(path, background=_colour(background))


def read_guide(
    opened: Opened,
    place: Placement,
    *,
    background: str | None = None,
    notify: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Picture:
    """The picture as ``place`` says, upright and in sRGB; ``notify`` gets a sentence for each change.

    What is larger than the poster is resized (Lanczos), a band at a time; nothing else is. ``check`` is
    called after each band, and what it raises ends the reading.
    """
    if notify is not None:
        for note in opened.notes:
            notify(note)
    bands = as_srgb(opened)
    left, top = _margins(place.picture, place.window)
    bands = cropped(bands, left=left, top=top, size=place.window)
    red, green, blue = (side / 255 for side in _colour(background))
    bands = _framed(bands, place.canvas, fill=(red, green, blue))
    bands = bands if bands.size == place.scaled else scaled(bands, place.scaled)
    pixels = np.empty((place.size.height, place.size.width, 3), np.float32)
    top = 0
    for band in _framed(bands, place.size).read():
        pixels[top : top + len(band)] = to_unit(band)
        top += len(band)
        if check is not None:
            check()
    return pixels


def _framed(bands: Bands, size: ImageSize, *, fill: tuple[float, float, float] | None = None) -> Bands:
    left, top = _margins(size, bands.size)
    return framed(bands, left=left, top=top, size=size, fill=fill)


def _margins(outer: ImageSize, inner: ImageSize) -> tuple[int, int]:
    """Left and top of ``inner`` in the middle of ``outer``."""
    return (outer.width - inner.width) // 2, (outer.height - inner.height) // 2


def _colour(background: str | None) -> tuple[int, int, int]:
    return WHITE if background is None else parse_colour(background)


def guide_hash(picture: Picture) -> str:
    """SHA-256 (hex) of the size and the floats, row by row: what enters the poster."""
    height, width, _ = picture.shape
    digest = hashlib.sha256(f"{height}x{width}x3 float32\n".encode())
    digest.update(np.ascontiguousarray(picture, dtype="<f4").data)
    return digest.hexdigest()
