"""A contact sheet: pictures side by side in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imax_dist.errors import BadValue
from imax_dist.output.atomic import write_file

Pixels = npt.NDArray[np.uint8]


def tile(pictures: Sequence[Pixels], *, columns: int, gap: int = 4) -> Pixels:
    """Equal (height, width, 3) pictures row by row on white, ``gap`` pixels apart.

    Raises BadValue if there are none or their sizes differ.
    """
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1:
        raise BadValue(f"sheet: pictures of {len(shapes)} sizes were given; give one or more of one size")
    height, width, _ = shapes.pop()
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + gap), k % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def write_sheet(path: Path, pictures: Sequence[Pixels], *, columns: int = 6) -> None:
    """Write ``tile(pictures)`` as a PNG, whole or not at all."""
    image = Image.fromarray(tile(pictures, columns=columns))
    write_file(path, lambda temporary: image.save(temporary, format="PNG"))
