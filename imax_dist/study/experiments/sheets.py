"""Sheets of a study's pictures: a row a scene, a column a variant; a part of each at 1:1 where asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imax_dist.geometry import ImageSize
from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.sheet import GAP, Pixels, smaller, write_sheet
from imax_dist.study.experiments.draw import ResultCache
from imax_dist.study.experiments.settings import Sheet
from imax_dist.study.scenes import render, sample_scene
from imax_dist.study.train.crops import HELD_OUT

Found = Mapping[str, Any]


def write_sheets(
    folder: Path, found: Found, cache: ResultCache, sheet: Sheet, *, widest: int | None = None
) -> list[Path]:
    """``sheet-2x-256x256.png`` and so on, as ``sheet`` says; returns their paths.

    With ``widest``, JPEGs of at most so many pixels across.
    """
    names = sheet.variants or tuple(found["settings"]["variants"])
    written = []
    for label in found["sizes"]:
        if sheet.scales and float(label.split("x")[0]) not in sheet.scales:
            continue
        path = folder / f"sheet-{label.replace(' ', '-')}.{'jpg' if widest else 'png'}"
        rows = _Rows(sheet, _pictures(found, cache, names, label, sheet=sheet))
        heads = (*(["true render"] if sheet.truth else []), *names)
        write_sheet(path, rows.laid_out(widest), columns=rows.columns, heads=() if rows.square else heads)
        written.append(path)
    return written


@dataclass(frozen=True)
class _Rows:
    """The pictures of each scene, as the sheet shows them."""

    sheet: Sheet
    scenes: list[list[Pixels]]

    @property
    def square(self) -> bool:
        """Whether scenes of one picture lie side by side."""
        return len(self.scenes[0]) == 1 and not self.sheet.parts

    @property
    def columns(self) -> int:
        return math.ceil(math.sqrt(len(self.scenes))) if self.square else len(self.scenes[0])

    def laid_out(self, widest: int | None) -> list[Pixels]:
        """All pictures, row by row; each as wide as its column on a sheet of ``widest`` pixels."""
        across = (widest + GAP) // self.columns - GAP if widest else self.scenes[0][0].shape[1]
        shown = []
        for number, row in enumerate(self.scenes):
            shown += [smaller(picture, width=across) for picture in row]
            if number < len(self.sheet.parts):
                shown += [_part(picture, self.sheet.parts[number], across) for picture in row]
        return shown


def _pictures(
    found: Found, cache: ResultCache, names: tuple[str, ...], label: str, *, sheet: Sheet
) -> list[list[Pixels]]:
    """Of each scene, the true render first."""
    size = ImageSize.parse(label.split()[1])
    keys: dict[int, dict[str, str]] = {}
    for cell in found["cells"]:
        if f"{cell['scale']:g}x {cell['size']}" == label:
            keys.setdefault(cell["scene"], {})[cell["variant"]] = cell["key"]
    rows = []
    for scene in sorted(keys)[: sheet.scenes]:
        truth = [render(sample_scene(HELD_OUT + scene), size.height, size.width)] if sheet.truth else []
        rows.append(truth + [read_pixels(cache.picture(keys[scene][name])) for name in names])
    return rows


def _part(picture: Pixels, place: tuple[float, ...], across: int) -> Pixels:
    """As many pixels as the small picture has, at 1:1; ``place`` is their upper left corner in shares."""
    height, width, _ = picture.shape
    across = min(across, width)
    down = round(height * across / width)
    left = min(round(place[0] * width), width - across)
    top = min(round(place[1] * height), height - down)
    return picture[top : top + down, left : left + across]
