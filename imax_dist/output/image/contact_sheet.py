"""A contact sheet: small pictures in rows, each with its words below, as one JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from imax_dist.output.atomic import write_file
from imax_dist.output.image.reader import as_srgb, open_picture
from imax_dist.output.image.resample import small_copy

SIDE = 320
"""Pixels of the longer side of a picture."""
GAP = 12
LINE = 20
FONT = 14.0
SMALLEST_FONT = 8.0
MISSING = (230, 230, 230)


class Shown(NamedTuple):
    """A picture's file and the words below it; no file: a grey field."""

    picture: Path | None
    words: str


def write_contact_sheet(path: Path, shown: Sequence[Shown], *, columns: int) -> None:
    """Write the sheet whole or not at all; pictures of any size and shape, none enlarged.

    Raises what ``open_picture`` raises, CannotWrite or NoPermission.
    """
    pictures = [None if one.picture is None else _small(one.picture) for one in shown]
    sides = [picture.size for picture in pictures if picture is not None] or [(SIDE, SIDE)]
    width, height = max(side[0] for side in sides), max(side[1] for side in sides)
    columns = max(1, min(columns, len(shown)))
    rows = -(-len(shown) // columns)
    wide, high = width + GAP, height + LINE + GAP
    sheet = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, one) in enumerate(zip(pictures, shown, strict=True)):
        left, top = GAP + number % columns * wide, GAP + number // columns * high
        if picture is None:
            pen.rectangle((left, top, left + width - 1, top + height - 1), fill=MISSING)
        else:
            sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        place = (left + width / 2, top + height + LINE / 2)
        pen.text(place, one.words, fill="black", font=_font(one.words, width), anchor="mm")
    write_file(path, lambda temporary: sheet.save(temporary, format="JPEG", quality=88))


def _small(path: Path) -> Image.Image:
    return Image.fromarray(small_copy(as_srgb(open_picture(path)), SIDE))


def _font(words: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """As large as the words allow."""
    size = FONT
    while size > SMALLEST_FONT and ImageFont.load_default(size).getlength(words) > width:
        size -= 1.0
    return ImageFont.load_default(size)
