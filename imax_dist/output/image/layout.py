"""A picture on a sheet: what is cut away, what is scaled, and how many pixels an inch come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import Bands, cropped, mirrored
from imax_dist.output.image.paper import MM_PER_INCH, Paper, Sheet
from imax_dist.output.image.resample import scaled
from imax_dist.output.image.settings import PLAIN_DPI, FinishSettings

MOST_CUT = 0.02
"""Share of a side that may be cut away without being asked for."""


class SheetLayout(NamedTuple):
    """Bands of the print's own pixels, their sheet, and what was done, for the recipe."""

    bands: Bands
    sheet: Sheet
    record: dict[str, Any]


def place(bands: Bands, settings: FinishSettings) -> SheetLayout:
    """Cut and scale a picture to its sheet. Raises BadValue where it does not fit as it is."""
    if settings.mirror_bleed:
        return _with_bleed(place(bands, replace(settings, bleed=None, mirror_bleed=False)), settings)
    sheet = settings.sheet()
    if sheet is None:
        return _placed(bands, _own_sheet(bands.size, settings.dpi or PLAIN_DPI), bands.size)
    if settings.dpi is None:
        sheet = replace(sheet, dpi=_dpi_of(bands.size, sheet))
    target = sheet.pixels
    if settings.scale == "none":
        _require_pixels(bands.size, sheet)
        window = target
    else:
        factor = max(target.width / bands.size.width, target.height / bands.size.height)
        window = ImageSize(
            min(bands.size.width, round(target.width / factor)),
            min(bands.size.height, round(target.height / factor)),
        )
    _require_shape(bands.size, window, sheet, cut=settings.cut)
    return _placed(bands, sheet, window, by=settings.scale)


def _with_bleed(trimmed: SheetLayout, settings: FinishSettings) -> SheetLayout:
    """A picture of the trimmed sheet with its edges mirrored into the bleed."""
    wanted = settings.sheet()
    assert wanted is not None
    sheet, size = replace(wanted, dpi=trimmed.sheet.dpi), trimmed.bands.size
    target = sheet.pixels
    left, top = (target.width - size.width) // 2, (target.height - size.height) // 2
    if 2 * max(left, top) + 2 > min(size.width, size.height):
        raise BadValue(
            f"bleed {settings.bleed} is too wide to be mirrored from {size} px; take a narrower one"
        )
    record = {**trimmed.record, "bleed_mm": round(sheet.bleed_mm, 3), "mirrored_bleed": True}
    return SheetLayout(mirrored(trimmed.bands, left=left, top=top, size=target), sheet, record)


def _placed(bands: Bands, sheet: Sheet, window: ImageSize, *, by: str = "none") -> SheetLayout:
    left, top = (bands.size.width - window.width) // 2, (bands.size.height - window.height) // 2
    record: dict[str, Any] = {
        "paper": sheet.paper.name,
        "trim_mm": [round(sheet.paper.width_mm, 3), round(sheet.paper.height_mm, 3)],
        "bleed_mm": round(sheet.bleed_mm, 3),
        "dpi": round(sheet.dpi, 3),
        "generated": str(bands.size),
        "window": {"left": left, "top": top, "size": str(window)},
        "scaled": None,
    }
    result = cropped(bands, left=left, top=top, size=window)
    if by != "none" and window != sheet.pixels:
        record["scaled"] = {"from": str(window), "to": str(sheet.pixels), "by": "lanczos"}
        if by != "lanczos":
            from imax_dist.output.image.super_resolution import enlarged

            result, record["scaled"]["by"] = enlarged(result, by)
        result = scaled(result, sheet.pixels)
    return SheetLayout(result, sheet, record)


def _own_sheet(size: ImageSize, dpi: float) -> Sheet:
    width, height = (side / dpi * MM_PER_INCH for side in (size.width, size.height))
    return Sheet(Paper("as rendered", width, height), dpi)


def _dpi_of(size: ImageSize, sheet: Sheet) -> float:
    """The highest dpi at which the picture still covers the sheet."""
    dpi = min(size.width / sheet.width_mm, size.height / sheet.height_mm) * MM_PER_INCH
    if dpi < 1:
        raise BadValue(f"{size} px on {sheet.paper.name} are less than 1 dpi; take a smaller paper")
    return dpi


def _require_pixels(size: ImageSize, sheet: Sheet) -> None:
    target = sheet.pixels
    if size.width < target.width or size.height < target.height:
        raise BadValue(
            f"{sheet.paper.name} with {sheet.bleed_mm:g} mm bleed at {sheet.dpi:g} dpi has {target} px, "
            f"the picture {size} ({_dpi_of(size, sheet):.0f} dpi); omit dpi to take it as it is, "
            "or scale it (lanczos)"
        )


def _require_shape(size: ImageSize, window: ImageSize, sheet: Sheet, *, cut: bool) -> None:
    share = max(1 - window.width / size.width, 1 - window.height / size.height)
    if share <= MOST_CUT or cut:
        return
    turned = (size.width > size.height) != (window.width > window.height)
    hint = "turn the sheet (landscape)" if turned else "allow it with cut, or scale the picture (lanczos)"
    raise BadValue(
        f"the picture has {size} px, {sheet.paper.name} at {sheet.dpi:.4g} dpi takes {window}: "
        f"{share:.0%} of a side would be cut away; {hint}"
    )
