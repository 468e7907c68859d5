"""What PDF/X-4 (ISO 15930-7) asks of a page like ours, from memory (decision 70); read with pikepdf."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pikepdf

XMP_KEYS = (
    "pdfxid:GTS_PDFXVersion", "xmp:CreateDate", "xmp:ModifyDate", "xmp:MetadataDate", "xmp:CreatorTool",
    "dc:title", "xmpMM:DocumentID", "xmpMM:VersionID", "xmpMM:RenditionClass", "pdf:Trapped",
)  # fmt: skip
DEVICE_COLOURS = {"g", "G", "rg", "RG", "k", "K"}
FORBIDDEN = ("/AA", "/OpenAction", "/AcroForm", "/Names", "/Encrypt", "/JavaScript")


def x4_faults(path: Path) -> list[str]:
    """Each thing that keeps the file from being PDF/X-4; none if it may claim it."""
    with pikepdf.open(path) as pdf:
        return [*_document(pdf), *_metadata(pdf), *_intent(pdf), *_page(pdf)]


def _document(pdf: Any) -> Iterator[str]:
    yield from pdf.check_pdf_syntax()
    if pdf.pdf_version not in ("1.4", "1.5", "1.6"):
        yield f"version {pdf.pdf_version}"
    if pdf.is_encrypted or len(pdf.trailer.get("/ID", [])) != 2:
        yield "encrypted, or no /ID"
    yield from (f"catalog has {key}" for key in FORBIDDEN if key in pdf.Root)


def _metadata(pdf: Any) -> Iterator[str]:
    xmp, info = pdf.open_metadata(), pdf.docinfo
    yield from (f"XMP lacks {key}" for key in XMP_KEYS if not xmp.get(key))
    if xmp.get("pdfxid:GTS_PDFXVersion") != "PDF/X-4":
        yield "XMP claims no PDF/X-4"
    if str(info.get("/Trapped")) not in ("/True", "/False") or xmp.get("pdf:Trapped") not in (
        "True",
        "False",
    ):
        yield "Trapped is neither True nor False"
    yield from (f"Info lacks {key}" for key in ("/Title", "/CreationDate", "/ModDate") if key not in info)
    for key, name in (("/CreationDate", "xmp:CreateDate"), ("/ModDate", "xmp:ModifyDate")):
        digits = "".join(c for c in str(xmp.get(name)) if c.isdigit())
        if str(info.get(key)) != f"D:{digits}Z":
            yield f"{key} and {name} differ"
    if str(info.get("/Title")) != str(xmp.get("dc:title")):
        yield "the titles differ"
    if str(info.get("/Producer")) != str(xmp.get("pdf:Producer")):
        yield "the producers differ"


def _intent(pdf: Any) -> Iterator[str]:
    intents = [each for each in pdf.Root.get("/OutputIntents", []) if each.get("/S") == "/GTS_PDFX"]
    if len(intents) != 1:
        yield f"{len(intents)} output intents for PDF/X"
        return
    if not str(intents[0].get("/OutputConditionIdentifier", "")):
        yield "the output intent is not named"
    profile = intents[0].DestOutputProfile
    data = profile.read_bytes()
    channels = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}[data[16:20]]
    if data[12:16] != b"prtr" or int(profile.N) != channels:
        yield f"the output intent is of class {data[12:16]!r} with N {profile.N}"


def _page(pdf: Any) -> Iterator[str]:
    (page,) = pdf.pages
    if "/TrimBox" not in page or "/ArtBox" in page:
        yield "there must be a TrimBox and no ArtBox"
    boxes = [[float(side) for side in page[name]] for name in ("/MediaBox", "/BleedBox", "/TrimBox")]
    for outer, inner in itertools.pairwise(boxes):
        if any(a > b + 1e-3 for a, b in zip(outer[:2], inner[:2], strict=True)) or any(
            a < b - 1e-3 for a, b in zip(outer[2:], inner[2:], strict=True)
        ):
            yield f"{inner} is not inside {outer}"
    if "/Annots" in page or "/Font" in page.Resources:
        yield "annotations or fonts"
    used = {str(operator) for _, operator in pikepdf.parse_content_stream(page)}
    yield from (f"device colours: {operator}" for operator in sorted(used & DEVICE_COLOURS))
    for image in page.images.values():
        if image.get("/ColorSpace")[0] != "/ICCBased" or "/LZWDecode" in str(image.get("/Filter")):
            yield "an image without a profile, or with LZW"
        if "/Alternates" in image or "/OPI" in image or image.get("/Interpolate"):
            yield "alternates, OPI or interpolation"
