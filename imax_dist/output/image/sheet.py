"""A contact sheet: pictures side by side in one PNG or JPEG, with words above the columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from imax_dist.errors import BadValue
from imax_dist.output.atomic import write_file

Pixels = npt.NDArray[np.uint8]
_FORMATS = {".png": "PNG", ".jpg": "JPEG"}


GAP = 4
"""Pixels between the pictures of a sheet."""


def tile(pictures: Sequence[Pixels], *, columns: int, gap: int = GAP) -> Pixels:
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


def stacked(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Rows of as many pictures of one width, one under the other; a row's pictures are of one size."""
    tiled = [tile(row, columns=len(row)) for row in rows]
    gap = np.full((GAP, tiled[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in tiled for part in (gap, row)][1:])


def same_crop(pictures: Sequence[Pixels], crop: tuple[int, int, int, int]) -> list[Pixels]:
    """The same part of pictures of one shape and several sizes, at the pixels of the largest.

    ``crop`` is (left, top, width, height) in the largest picture; smaller ones are enlarged to its size first
    (Lanczos). Raises BadValue if the crop does not lie inside, or the shapes differ.
    """
    largest = max(pictures, key=len)
    height, width, _ = largest.shape
    left, top, wide, high = crop
    if min(left, top) < 0 or min(wide, high) < 1 or left + wide > width or top + high > height:
        part = f"{left},{top},{wide},{high}"
        raise BadValue(f"crop {part} does not lie inside the largest picture, {width}x{height}")
    shown = []
    for picture in pictures:
        if abs(picture.shape[1] * height - picture.shape[0] * width) > max(height, width):
            raise BadValue(
                f"sheet: a picture of {picture.shape[1]}x{picture.shape[0]} has another shape than the "
                f"largest, {width}x{height}; give pictures of one shape"
            )
        enlarged = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        shown.append(np.asarray(enlarged)[top : top + high, left : left + wide])
    return shown


def smaller(picture: Pixels, *, width: int) -> Pixels:
    """The whole picture, ``width`` pixels across (Lanczos); itself where it is no wider."""
    height, own, _ = picture.shape
    if width >= own:
        return picture
    size = (width, round(height * width / own))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def write_sheet(
    path: Path, pictures: Sequence[Pixels], *, columns: int = 6, heads: Sequence[str] = ()
) -> None:
    """Write ``tile(pictures)`` as a PNG (or ``.jpg``), whole or not at all. ``heads`` stand above the
    columns."""
    image = Image.fromarray(tile(pictures, columns=columns))
    if heads:
        image = _headed(image, heads)
    options = {"quality": 85} if path.suffix == ".jpg" else {}
    write_file(path, lambda temporary: image.save(temporary, format=_FORMATS[path.suffix], **options))


def _headed(image: Image.Image, heads: Sequence[str]) -> Image.Image:
    """The sheet with a line of words above each column, as large as the longest allows."""
    wide = image.width / len(heads)
    size = 18.0
    while size > 7 and max(ImageFont.load_default(size).getlength(head) for head in heads) > wide - 4:
        size -= 1
    font = ImageFont.load_default(size)
    above = int(size * 1.6)
    whole = Image.new("RGB", (image.width, image.height + above), "white")
    whole.paste(image, (0, above))
    pen = ImageDraw.Draw(whole)
    for k, head in enumerate(heads):
        pen.text(((k + 0.5) * wide, above / 2), head, fill="black", font=font, anchor="mm")
    return whole
