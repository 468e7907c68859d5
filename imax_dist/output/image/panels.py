"""A sheet in panels: parts that overlap, for paper that is narrower than the poster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import cropped
from imax_dist.output.image.layout import SheetLayout
from imax_dist.output.image.paper import MM_PER_INCH, Paper, Sheet, parse_length

MOST_PANELS = 100
LEAST_MM = 20.0
"""A panel is wider than that beside its overlaps."""


class Grid(NamedTuple):
    """``columns`` x ``rows`` panels, each sharing ``overlap_mm`` with its neighbours."""

    columns: int
    rows: int
    overlap_mm: float


def parse_grid(text: str, overlap: str) -> Grid:
    """``3x2`` is three panels side by side in two rows. Raises BadValue."""
    match = re.fullmatch(r"\s*(\d{1,3})\s*[x×]\s*(\d{1,3})\s*", text.lower())
    if match is None or not 2 <= int(match[1]) * int(match[2]) <= MOST_PANELS:
        raise BadValue(f"panels {text!r} is not COLUMNSxROWS with 2 to {MOST_PANELS} panels, for example 3x2")
    return Grid(int(match[1]), int(match[2]), parse_length(overlap))


def panels_of(placed: SheetLayout, grid: Grid) -> Iterator[tuple[str, SheetLayout]]:
    """``r1c1`` and the panel: its own sheet, with the bleed of the whole, and its window of the picture.

    Panels are equal; beyond an inner edge lies the neighbour's picture. Raises BadValue for panels that
    would be little more than overlap.
    """
    sheet = placed.sheet
    across = _spans(sheet.paper.width_mm, sheet, placed.bands.size.width, (grid.columns, grid.overlap_mm))
    down = _spans(sheet.paper.height_mm, sheet, placed.bands.size.height, (grid.rows, grid.overlap_mm))
    for name, (top, left) in zip(panel_names(grid), product(down.starts, across.starts), strict=True):
        paper = Paper(f"{sheet.paper.name} {name}", across.trim_mm, down.trim_mm)
        window = ImageSize(across.pixels, down.pixels)
        record = {
            **placed.record,
            "trim_mm": [round(across.trim_mm, 3), round(down.trim_mm, 3)],
            "panel": {
                "name": name,
                "of": f"{grid.columns}x{grid.rows}",
                "overlap_mm": round(grid.overlap_mm, 3),
                "left": left,
                "top": top,
            },
        }
        bands = cropped(placed.bands, left=left, top=top, size=window)
        yield name, SheetLayout(bands, replace(sheet, paper=paper), record)


def panel_names(grid: Grid) -> list[str]:
    """``r1c1``, ``r1c2`` and so on, row by row."""
    return [f"r{row}c{column}" for row in range(1, grid.rows + 1) for column in range(1, grid.columns + 1)]


def panel_path(out: Path, name: str) -> Path:
    """``sea.pdf`` -> ``sea-r1c2.pdf``."""
    return out.with_name(f"{out.stem}-{name}{out.suffix}")


class _Spans(NamedTuple):
    """Panels along one side: the trim of each, its pixels with bleed, where each begins."""

    trim_mm: float
    pixels: int
    starts: list[int]


def _spans(whole_mm: float, sheet: Sheet, whole_pixels: int, parts: tuple[int, float]) -> _Spans:
    count, overlap_mm = parts
    trim = (whole_mm + (count - 1) * overlap_mm) / count
    if count > 1 and trim - 2 * overlap_mm < LEAST_MM:
        raise BadValue(
            f"panels: {count} along {whole_mm:g} mm with {overlap_mm:g} mm overlap are {trim:.0f} mm each; "
            "take fewer, or less overlap"
        )
    per_mm = sheet.dpi / MM_PER_INCH
    pixels = min(whole_pixels, round((trim + 2 * sheet.bleed_mm) * per_mm))
    step = (whole_pixels - pixels) / max(count - 1, 1)
    return _Spans(trim, pixels, [round(index * step) for index in range(count)])
