"""From a picture to a print file: sheet, scale, colours, bits, labels, in one pass over its rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from imax_dist.errors import BadValue
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.colour import ColourReport, converted
from imax_dist.output.image.dither import with_bits
from imax_dist.output.image.jpeg import write_jpeg
from imax_dist.output.image.labels import Labels
from imax_dist.output.image.layout import Placed, place
from imax_dist.output.image.paper import parse_length
from imax_dist.output.image.pdf import REDUCED, page_boxes, write_pdf
from imax_dist.output.image.png import write_print_png
from imax_dist.output.image.profile import PRINTER, Profile, read_profile, srgb
from imax_dist.output.image.reader import Picture
from imax_dist.output.image.settings import FinishSettings, kind_of
from imax_dist.output.image.tiff import write_tiff
from imax_dist.output.image.xmp import NOT_XML, packet

FORMAT = "imax-print/1"
PDF_X = {"pdfxid:GTS_PDFXVersion": "PDF/X-4"}
PDF_NAMES = (
    ' xmlns:pdfxid="http://www.npes.org/pdfx/ns/id/" xmlns:pdf="http://ns.adobe.com/pdf/1.3/"'
    ' xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"'
)
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

    Raises BadValue, MissingInput, BadManifest (a torn source), CannotWrite; nothing half-written is left.
    """
    settings = inherit(settings, picture.recipe)
    kind = KINDS[check(out, settings)]
    _require_original(picture)
    placed = place(picture.bands, settings)
    source, target = _profiles(picture, settings)
    bits = _bits(picture, kind, settings)
    bands, report = placed.bands, None
    if target.data != source.data:
        bands, report = converted(
            bands, (source, target), intent=settings.intent, black_point=settings.black_point_compensation
        )
    record = _record(placed, target, settings, kind=kind_of(out), bits=bits, before=picture.recipe)
    labels = _labels(placed, target, settings, record=record, picture=picture, kind=kind)
    digest = kind.write(out, with_bits(bands, bits), labels)
    record = {**record, "pixels_sha256": digest}
    notes = [*picture.notes, *_sheet_notes(placed, settings, picture.recipe)]
    if kind_of(out) == "pdf" and labels.press is None:
        notes.append("not PDF/X-4: that takes the profile of a press or printer (--icc or --output-intent)")
    return _finished(record, placed, notes=notes, report=report, crop_marks=settings.crop_marks)


def check(out: Path, settings: FinishSettings) -> str:
    """The kind of ``out``; raises before any work what cannot be written with these settings."""
    name = kind_of(out)
    kind = KINDS[name]
    profile = read_profile(Path(settings.icc)) if settings.icc else None
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
        read_profile(Path(settings.output_intent))
    if settings.scale not in ("none", "lanczos"):
        from imax_dist.output.image.super_resolution import require_model

        require_model(settings.scale)
    return name


def inherit(settings: FinishSettings, recipe: Mapping[str, Any] | None) -> FinishSettings:
    """Paper, dpi, bleed and landscape of the recipe's request where ``settings`` name no paper."""
    request = (recipe or {}).get("request", {})
    if settings.paper is not None or not request.get("paper"):
        return settings
    asked = {name: request.get(name) for name in ("paper", "bleed")}
    dpi = settings.dpi if settings.dpi is not None else request.get("dpi")
    return replace(settings, **asked, dpi=dpi, landscape=bool(request.get("landscape")))


def _require_original(picture: Picture) -> None:
    """Raises BadValue for a CMYK print of this program: its RGB original has more colours."""
    before = (picture.recipe or {}).get("file")
    if picture.bands.channels != 3 or (isinstance(before, dict) and before.get("colour") == "CMYK"):
        raise BadValue("the picture is CMYK already, a finished print; finish the RGB original")


def _profiles(picture: Picture, settings: FinishSettings) -> tuple[Profile, Profile]:
    source = picture.profile or srgb()
    return source, read_profile(Path(settings.icc)) if settings.icc else source


def _bits(picture: Picture, kind: Kind, settings: FinishSettings) -> int:
    if settings.bits is not None:
        return settings.bits
    return 16 if kind.deep and picture.bands.bits > 8 else 8


def _record(
    placed: Placed,
    target: Profile,
    settings: FinishSettings,
    *,
    kind: str,
    bits: int,
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    coded = kind == "jpeg" or (kind == "pdf" and not settings.lossless)
    record = {
        "format": FORMAT,
        "kind": kind,
        "bits": bits,
        **placed.record,
        "colour": target.space,
        "profile": {"name": target.name, "sha256": target.sha256},
        "intent": settings.intent,
        "black_point_compensation": settings.black_point_compensation,
        "hash_of": "coded picture" if coded else "samples",
    }
    if coded:
        record["quality"] = settings.quality
    if before and "file" in before:
        record["made_from"] = before["file"]
    return record


def _labels(
    placed: Placed,
    target: Profile,
    settings: FinishSettings,
    *,
    record: dict[str, Any],
    picture: Picture,
    kind: Kind,
) -> Labels:
    is_pdf = record["kind"] == "pdf"
    prompt = str((picture.recipe or {}).get("request", {}).get("prompt", "")) or "poster"
    title = NOT_XML.sub(" ", prompt[:200])
    moment = _moment()
    properties = _pdf_properties(moment) if is_pdf else {}
    intent = read_profile(Path(settings.output_intent)) if settings.output_intent else None
    if is_pdf and (intent or target).kind == PRINTER:
        properties |= PDF_X
    if is_pdf and page_boxes(placed.sheet, crop_marks=settings.crop_marks).reduction != 1:
        properties["pdf:Keywords"] = f"page at 1:{REDUCED} of its real size"

    def xmp(digest: str) -> bytes:
        recipe = picture.recipe and {**picture.recipe, "file": {**record, "pixels_sha256": digest}}
        if not is_pdf:
            return packet(recipe, media=kind.media).encode()
        own = {**properties, "xmpMM:DocumentID": f"uuid:{UUID(digest[:32])}"}
        return packet(recipe, media=kind.media, namespaces=PDF_NAMES, properties=own, title=title).encode()

    return Labels(
        sheet=placed.sheet,
        profile=target,
        xmp=xmp,
        title=title,
        output_intent=intent,
        moment=moment,
        crop_marks=settings.crop_marks,
        quality=settings.quality,
        lossless=settings.lossless,
    )


def _moment() -> datetime:
    """Now, or what SOURCE_DATE_EPOCH names, as in reproducible builds: then equal prints are equal files."""
    named = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(named), UTC) if named.isdecimal() else datetime.now(UTC)


def _pdf_properties(moment: datetime) -> dict[str, str]:
    """What PDF/X-4 wants said in XMP beside the title, the document and the printing condition."""
    made = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    dates = dict.fromkeys(("xmp:CreateDate", "xmp:ModifyDate", "xmp:MetadataDate"), made)
    return {
        **dates,
        "pdf:Producer": "imax-dist",
        "pdf:Trapped": "False",
        "xmpMM:VersionID": "1",
        "xmpMM:RenditionClass": "default",
    }


def _sheet_notes(placed: Placed, settings: FinishSettings, recipe: Mapping[str, Any] | None) -> Iterator[str]:
    """What a print shop would ask about."""
    record = placed.record
    if settings.paper is not None and record["dpi"] < LEAST_DPI:
        yield f"{record['dpi']:.0f} dpi on {record['paper']}: under {LEAST_DPI} pixels can be seen from near"
    rendered = ((recipe or {}).get("request") or {}).get("bleed")
    if rendered and parse_length(str(rendered)) > record["bleed_mm"]:
        yield (
            f"the poster was rendered with {rendered} bleed, this print has {record['bleed_mm']:g} mm; "
            f"add --bleed {rendered} to keep it"
        )


def _finished(
    record: dict[str, Any],
    placed: Placed,
    *,
    notes: Sequence[str],
    report: ColourReport | None,
    crop_marks: bool,
) -> Finished:
    told = list(notes)
    if placed.record["scaled"]:
        step = placed.record["scaled"]
        told.append(f"generated at {step['from']} px, scaled to {step['to']} by {step['by']}")
    if report is not None:
        record = {**record, "colour_report": report.lines()}
        told += report.sentences()
    if record["kind"] == "pdf" and page_boxes(placed.sheet, crop_marks=crop_marks).reduction != 1:
        told.append(f"the page is longer than 14400 pt and written at 1:{REDUCED}; tell the print shop")
    return Finished(record, told)
