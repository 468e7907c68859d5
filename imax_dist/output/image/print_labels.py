"""What a print file records of itself: the entry in its recipe, its XMP, its dates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from imax_dist.output.image.labels import Labels
from imax_dist.output.image.layout import SheetLayout
from imax_dist.output.image.pdf import REDUCED, page_boxes
from imax_dist.output.image.profile import PRINTER, Profile
from imax_dist.output.image.reader import Picture
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.image.system_profiles import profile_named
from imax_dist.output.image.xmp import NOT_XML, packet

FORMAT = "imax-print/1"
PDF_X = {"pdfxid:GTS_PDFXVersion": "PDF/X-4"}
PDF_NAMES = (
    ' xmlns:pdfxid="http://www.npes.org/pdfx/ns/id/" xmlns:pdf="http://ns.adobe.com/pdf/1.3/"'
    ' xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"'
)
ORDER_NAMES = ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
ORDER = "photoshop:TransmissionReference"
"""IPTC's Job Id, which asset managers and shops show."""


def record_of(
    placed: SheetLayout,
    target: Profile,
    settings: FinishSettings,
    *,
    kind: str,
    bits: int,
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The file's entry in its recipe; ``before`` is the recipe of the picture it is made of."""
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
    if settings.order is not None:
        record["order"] = settings.order
    if before and "file" in before:
        record["made_from"] = before["file"]
    return record


def labels_of(
    placed: SheetLayout,
    target: Profile,
    settings: FinishSettings,
    *,
    record: dict[str, Any],
    picture: Picture,
    media: str,
) -> Labels:
    """What the writer puts beside the samples; ``media`` is the file's type (image/tiff, ...)."""
    is_pdf = record["kind"] == "pdf"
    prompt = str((picture.recipe or {}).get("request", {}).get("prompt", "")) or "poster"
    title = NOT_XML.sub(" ", prompt[:200])
    moment = _moment()
    properties = _pdf_properties(moment) if is_pdf else {}
    intent = profile_named(settings.output_intent) if settings.output_intent else None
    if is_pdf and (intent or target).kind == PRINTER:
        properties |= PDF_X
    if is_pdf and page_boxes(placed.sheet, crop_marks=settings.crop_marks).reduction != 1:
        properties["pdf:Keywords"] = f"page at 1:{REDUCED} of its real size"
    own = {} if settings.order is None else {ORDER: settings.order}
    names = "" if settings.order is None else ORDER_NAMES

    def xmp(digest: str) -> bytes:
        recipe = picture.recipe and {**picture.recipe, "file": {**record, "pixels_sha256": digest}}
        if not is_pdf:
            return packet(recipe, media=media, namespaces=names, properties=own).encode()
        every = {**properties, **own, "xmpMM:DocumentID": f"uuid:{UUID(digest[:32])}"}
        namespaces = PDF_NAMES + names
        return packet(recipe, media=media, namespaces=namespaces, properties=every, title=title).encode()

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
