"""A picture of the user's as the native picture: read, checked and brought to the native size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import to_unit
from imax_dist.output.image.reader import Picture as Opened
from imax_dist.output.image.reader import as_srgb, open_picture, require_file
from imax_dist.output.image.resample import scaled

WIDEST_DIFFERENCE = 1.05
"""Two shapes are the same if their aspect ratios differ by at most this factor."""

Picture = npt.NDArray[np.float32]
"""(height, width, 3) in [0, 1]."""


def quietly(text: str) -> None:
    """The listener that does nothing."""


def open_guide(path: Path, poster: ImageSize) -> Opened:
    """The file opened, from its header alone.

    Raises MissingInput or BadManifest for a file that is not there or no picture, BadValue if its shape
    differs from the ``poster``'s by more than 5 %.
    """
    require_file(path, "guide")
    opened = open_picture(path)
    size = opened.bands.size
    own, wanted = size.width / size.height, poster.width / poster.height
    if abs(math.log(own / wanted)) > math.log(WIDEST_DIFFERENCE):
        raise BadValue(
            f"guide {path} is {size}, but the poster is {poster}: the shapes differ by more than 5 %; "
            "crop the guide, or ask for a size of its shape"
        )
    return opened


def read_guide(
    path: Path, native: ImageSize, poster: ImageSize, *, tell: Callable[[str], None] = quietly
) -> Picture:
    """The picture at ``native``, upright and in sRGB: as it is if it has that size, else resized (Lanczos).

    ``tell`` gets a sentence for each thing done to it. Raises what ``open_guide`` raises.
    """
    opened = open_guide(path, poster)
    for note in opened.notes:
        tell(f"guide {path}: {note}")
    bands = as_srgb(opened)
    sized = bands if bands.size == native else scaled(bands, native)
    return np.concatenate([to_unit(band) for band in sized.read()]).astype(np.float32)


def guide_hash(picture: Picture) -> str:
    """SHA-256 (hex) of the size and the floats, row by row: what enters the poster."""
    height, width, _ = picture.shape
    digest = hashlib.sha256(f"{height}x{width}x3 float32\n".encode())
    digest.update(np.ascontiguousarray(picture, dtype="<f4").data)
    return digest.hexdigest()
