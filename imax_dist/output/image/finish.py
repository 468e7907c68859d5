"""From a picture to a print file: sheet, scale, colours, bits, labels, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import BadValue
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.colour import ColourReport, converted
from imax_dist.output.image.dither import with_bits
from imax_dist.output.image.jpeg import write_jpeg
from imax_dist.output.image.labels import Labels
from imax_dist.output.image.layout import SheetLayout, place
from imax_dist.output.image.panels import panel_names, panel_path, panels_of, parse_grid
from imax_dist.output.image.paper import parse_length
from imax_dist.output.image.pdf import REDUCED, page_boxes, write_pdf
from imax_dist.output.image.png import write_print_png
from imax_dist.output.image.print_labels import labels_of, record_of
from imax_dist.output.image.profile import Profile, srgb
from imax_dist.output.image.reader import Picture
from imax_dist.output.image.settings import FinishSettings, kind_of
from imax_dist.output.image.system_profiles import profile_named
from imax_dist.output.image.tiff import write_tiff

LEAST_DPI = 150
"""Below, single pixels can be seen at arm's length."""


class Kind(NamedTuple):
    """One kind of print file: how it is written, its media type, what it can hold."""

    write: Callable[[Path, Bands, Labels], str]
    media: str
    deep: bool
    cmyk: bool


KINDS = {
    "tiff": Kind(write_tiff, "image/tiff", deep=True, cmyk=True),
    "png": Kind(write_print_png, "image/png", deep=True, cmyk=False),
    "jpeg": Kind(write_jpeg, "image/jpeg", deep=False, cmyk=True),
    "pdf": Kind(write_pdf, "application/pdf", deep=False, cmyk=True),
}


class Finished(NamedTuple):
    """The file's record (as in its recipe, with the hash) and sentences for the person who asked."""

    record: dict[str, Any]
    notes: list[str]


def finish(picture: Picture, out: Path, settings: FinishSettings) -> Finished:
    """Write ``picture`` to ``out`` (its ending says what kind). Memory does not grow with its height.

    Raises BadValue, MissingInput, BadManifest (a damaged source), CannotWrite; nothing half-written is left.
    """
    settings = inherit(settings, picture.recipe)
    check(out, settings)
    if settings.panels is not None:
        raise BadValue("panels are several files; imax finish writes them")
    _require_original(picture)
    return _write(picture, place(picture.bands, settings), out, settings)


def files_of(out: Path, settings: FinishSettings) -> list[Path]:
    """What is written for ``out``: itself, or a file a panel. Raises BadValue for a grid that is none."""
    if settings.panels is None:
        return [out]
    grid = parse_grid(settings.panels, settings.overlap)
    return [panel_path(out, name) for name in panel_names(grid)]


def finish_panels(picture: Picture, out: Path, settings: FinishSettings) -> dict[Path, Finished]:
    """Write the panels of a sheet, ``sea-r1c1.pdf`` and so on; raises as ``finish``, and leaves none then.

    Raises BadValue without a grid.
    """
    settings = inherit(settings, picture.recipe)
    check(out, settings)
    if settings.panels is None:
        raise BadValue("panels need a grid, for example 3x2")
    _require_original(picture)
    grid = parse_grid(settings.panels, settings.overlap)
    made: dict[Path, Finished] = {}
    try:
        for name, panel in panels_of(place(picture.bands, settings), grid):
            path = panel_path(out, name)
            made[path] = _write(picture, panel, path, settings)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return made


def _write(picture: Picture, placed: SheetLayout, out: Path, settings: FinishSettings) -> Finished:
    kind = KINDS[kind_of(out)]
    source, target = _profiles(picture, settings)
    bits = _bits(picture, kind, settings)
    bands, report = placed.bands, None
    if target.data != source.data:
        bands, report = converted(
            bands, (source, target), intent=settings.intent, black_point=settings.black_point_compensation
        )
    record = record_of(placed, target, settings, kind=kind_of(out), bits=bits, before=picture.recipe)
    labels = labels_of(placed, target, settings, record=record, picture=picture, media=kind.media)
    digest = kind.write(out, with_bits(bands, bits), labels)
    record = {**record, "pixels_sha256": digest}
    notes = [*picture.notes, *_sheet_notes(placed, settings, picture.recipe)]
    if kind_of(out) == "pdf" and labels.press is None:
        notes.append("not PDF/X-4: that needs the profile of a press or printer (--icc or --output-intent)")
    return _finished(record, placed, notes=notes, report=report, crop_marks=settings.crop_marks)


def check(out: Path, settings: FinishSettings) -> str:
    """The kind of ``out``; raises BadValue before any work for what cannot be written with these settings."""
    name = kind_of(out)
    kind = KINDS[name]
    if settings.panels is not None:
        parse_grid(settings.panels, settings.overlap)
    profile = profile_named(settings.icc) if settings.icc else None
    if profile is not None and profile.space == "CMYK" and not kind.cmyk:
        raise BadValue(f"{out.name}: PNG cannot hold CMYK ({profile.name}); use tif or pdf")
    if settings.bits == 16 and not (kind.deep or (name == "pdf" and settings.lossless)):
        how = "a PDF needs lossless for them" if name == "pdf" else "use tif or png"
        raise BadValue(f"{out.name}: {name.upper()} cannot hold 16 bits a channel; {how}")
    if settings.crop_marks and name != "pdf":
        raise BadValue(f"{out.name}: crop marks lie outside the picture, which only a PDF page has room for")
    if settings.output_intent is not None:
        if name != "pdf":
            raise BadValue(f"{out.name}: an output intent belongs to a PDF; name the file .pdf")
        profile_named(settings.output_intent)
    if settings.scale not in ("none", "lanczos"):
        from imax_dist.output.image.super_resolution import require_model

        require_model(settings.scale)
    return name


def inherit(settings: FinishSettings, recipe: Mapping[str, Any] | None) -> FinishSettings:
    """Paper, dpi, bleed and landscape of the recipe's request where ``settings`` name no paper.

    Raises BadValue for a bleed to mirror that was rendered already.
    """
    request = (recipe or {}).get("request", {})
    if settings.paper is not None or not request.get("paper"):
        return settings
    page = {name: request.get(name) for name in ("paper", "bleed")}
    dpi = settings.dpi if settings.dpi is not None else request.get("dpi")
    if settings.mirror_bleed and page["bleed"]:
        raise BadValue("the poster was rendered with its bleed already; omit the mirrored one")
    return replace(settings, **page, dpi=dpi, landscape=bool(request.get("landscape")))


def _require_original(picture: Picture) -> None:
    """Raises BadValue for a CMYK print of this program: its RGB original has more colours."""
    before = (picture.recipe or {}).get("file")
    if picture.bands.channels != 3 or (isinstance(before, dict) and before.get("colour") == "CMYK"):
        raise BadValue("the picture is CMYK already, a finished print; finish the RGB original")


def _profiles(picture: Picture, settings: FinishSettings) -> tuple[Profile, Profile]:
    source = picture.profile or srgb()
    return source, profile_named(settings.icc) if settings.icc else source


def _bits(picture: Picture, kind: Kind, settings: FinishSettings) -> int:
    if settings.bits is not None:
        return settings.bits
    return 16 if kind.deep and picture.bands.bits > 8 else 8


def _sheet_notes(
    placed: SheetLayout, settings: FinishSettings, recipe: Mapping[str, Any] | None
) -> Iterator[str]:
    """What a print shop would ask about."""
    record = placed.record
    if settings.paper is not None and record["dpi"] < LEAST_DPI:
        found = f"{record['dpi']:.0f} dpi on {record['paper']}"
        yield f"{found}: under {LEAST_DPI} dpi, single pixels show at reading distance"
    rendered = ((recipe or {}).get("request") or {}).get("bleed")
    if rendered and parse_length(str(rendered)) > record["bleed_mm"]:
        yield (
            f"the poster was rendered with {rendered} bleed, this print has {record['bleed_mm']:g} mm; "
            f"add --bleed {rendered} to keep it"
        )


def _finished(
    record: dict[str, Any],
    placed: SheetLayout,
    *,
    notes: Sequence[str],
    report: ColourReport | None,
    crop_marks: bool,
) -> Finished:
    sentences = list(notes)
    if placed.record["scaled"]:
        step = placed.record["scaled"]
        sentences.append(f"generated at {step['from']} px, scaled to {step['to']} by {step['by']}")
    if report is not None:
        record = {**record, "colour_report": report.lines()}
        sentences += report.sentences()
    if record["kind"] == "pdf" and page_boxes(placed.sheet, crop_marks=crop_marks).reduction != 1:
        sentences.append(f"the page is longer than 14400 pt and written at 1:{REDUCED}; tell the print shop")
    return Finished(record, sentences)
