"""PDF of one page and one picture: boxes, XMP, no encryption; PDF/X-4 where a printing condition is named.

Written piece by piece, so that the picture never has to be in memory. Without the profile of a printer or
press there is no output intent, and no claim (DECISIONS 70 says which keys were checked).
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.jpeg import SOI, Hashing, require_fit, save_coded
from imax_dist.output.image.labels import Labels, hashed
from imax_dist.output.image.paper import Sheet
from imax_dist.output.image.png import save_rows
from imax_dist.output.image.profile import Profile

LONGEST_SIDE_PT = 14_400.0
ROUNDING_PT = 0.001
REDUCED = 10
"""A page that would be longer is written at one tenth, as printers of banners expect."""
SLUG_MM = 12.0
MARK_MM, MARK_GAP_MM = 6.0, 3.0
PT_PER_MM = 72 / 25.4
CATALOG, PAGES, PAGE, CONTENT, IMAGE, LENGTH, PROFILE, INTENT, METADATA, INFO = range(1, 11)
SPACES = {3: "/DeviceRGB", 4: "/DeviceCMYK"}


class Boxes(NamedTuple):
    """Media, bleed and trim as (left, bottom, right, top) in points, and the page's reduction (1 or 10)."""

    media: tuple[float, float, float, float]
    bleed: tuple[float, float, float, float]
    trim: tuple[float, float, float, float]
    reduction: int


def page_boxes(sheet: Sheet, *, crop_marks: bool) -> Boxes:
    """Boxes of a sheet: the bleed box is the picture, the media box is it and the marks' margin."""
    slug = SLUG_MM if crop_marks else 0.0
    longest = max(sheet.width_mm, sheet.height_mm) + 2 * slug
    reduction = REDUCED if longest * PT_PER_MM > LONGEST_SIDE_PT + ROUNDING_PT else 1
    unit = PT_PER_MM / reduction
    right, top = (slug + sheet.width_mm) * unit, (slug + sheet.height_mm) * unit
    low, cut = slug * unit, (slug + sheet.bleed_mm) * unit
    return Boxes(
        media=(0.0, 0.0, right + low, top + low),
        bleed=(low, low, right, top),
        trim=(cut, cut, right - (cut - low), top - (cut - low)),
        reduction=reduction,
    )


def write_pdf(path: Path, bands: Bands, labels: Labels) -> str:
    """Write the page; returns the hash of the pixels (lossless) or of the coded JPEG.

    Raises BadValue for a side that JPEG cannot hold, CannotWrite or NoPermission.
    """
    if not labels.lossless:
        require_fit(path, bands)
    digest: list[str] = []

    def write(temporary: Path) -> None:
        with temporary.open("r+b") as file:
            digest.append(_Writer(file).document(bands, labels))

    write_file(path, write)
    return digest[0]


class _Writer:
    """Objects in the order they are written, and where each began."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.starts: dict[int, int] = {}

    def document(self, bands: Bands, labels: Labels) -> str:
        boxes = page_boxes(labels.sheet, crop_marks=labels.crop_marks)
        self.file.write(b"%PDF-1.6\n%\xe2\xe3\xcf\xd3\n")
        digest = self._image(bands, labels)
        self._stream(PROFILE, _profile_entries(labels.profile), zlib.compress(labels.profile.data))
        self._intent(labels)
        self._stream(METADATA, "/Type /Metadata /Subtype /XML", labels.xmp(digest))
        self._stream(CONTENT, "", _content(boxes, labels))
        self._object(PAGE, _page(boxes))
        self._object(PAGES, f"<< /Type /Pages /Kids [{PAGE} 0 R] /Count 1 >>")
        catalog = f"/Type /Catalog /Pages {PAGES} 0 R /Metadata {METADATA} 0 R"
        catalog += f" /OutputIntents [{INTENT} 0 R]" if labels.press else ""
        self._object(CATALOG, f"<< {catalog} >>")
        self._object(INFO, _information(labels))
        self._end(digest)
        return digest

    def _intent(self, labels: Labels) -> None:
        """The printing condition; an empty object without one."""
        press, stream = labels.press, PROFILE
        if press is None:
            self._object(INTENT, "null")
            return
        if press.data != labels.profile.data:
            stream = INFO + 1
            self._stream(stream, _profile_entries(press), zlib.compress(press.data))
        self._object(INTENT, _output_intent(press, stream))

    def _image(self, bands: Bands, labels: Labels) -> str:
        """The picture's object, whose length stands in an object after it."""
        samples, of_samples = hashed(bands)
        of_code = hashlib.sha256()
        self.starts[IMAGE] = self.file.tell()
        entries = f"{_image_entries(bands, labels)} /Length {LENGTH} 0 R"
        self.file.write(f"{IMAGE} 0 obj\n<< {entries} >>\nstream\n".encode())
        begin = self.file.tell()
        if labels.lossless:
            save_rows(samples, self.file)
        else:
            self.file.write(SOI)
            save_coded(bands, labels.quality, Hashing(self.file, of_code))
        length = self.file.tell() - begin
        self.file.write(b"\nendstream\nendobj\n")
        self._object(LENGTH, str(length))
        return of_samples.text if labels.lossless else of_code.hexdigest()

    def _object(self, number: int, text: str) -> None:
        self.starts[number] = self.file.tell()
        self.file.write(f"{number} 0 obj\n{text}\nendobj\n".encode())

    def _stream(self, number: int, entries: str, content: bytes) -> None:
        self.starts[number] = self.file.tell()
        self.file.write(f"{number} 0 obj\n<< {entries} /Length {len(content)} >>\nstream\n".encode())
        self.file.write(content + b"\nendstream\nendobj\n")

    def _end(self, digest: str) -> None:
        table, count = self.file.tell(), max(self.starts) + 1
        lines = [f"{self.starts[number]:010d} 00000 n \n" for number in range(1, count)]
        self.file.write(f"xref\n0 {count}\n0000000000 65535 f \n{''.join(lines)}".encode())
        name = f"<{digest[:32]}>"
        trailer = f"/Size {count} /Root {CATALOG} 0 R /Info {INFO} 0 R /ID [{name} {name}]"
        self.file.write(f"trailer\n<< {trailer} >>\nstartxref\n{table}\n%%EOF\n".encode())


def _image_entries(bands: Bands, labels: Labels) -> str:
    size, colours = bands.size, bands.channels
    entries = f"/Type /XObject /Subtype /Image /Width {size.width} /Height {size.height} "
    entries += f"/BitsPerComponent {bands.bits} /ColorSpace [/ICCBased {PROFILE} 0 R] "
    if labels.lossless:
        rows = f"/Predictor 15 /Colors {colours} /BitsPerComponent {bands.bits} /Columns {size.width}"
        return entries + f"/Filter /FlateDecode /DecodeParms << {rows} >>"
    inverted = "/Decode [1 0 1 0 1 0 1 0] " if colours == 4 else ""
    return entries + inverted + "/Filter /DCTDecode"


def _profile_entries(profile: Profile) -> str:
    return f"/N {profile.channels} /Alternate {SPACES[profile.channels]} /Filter /FlateDecode"


def _output_intent(profile: Profile, stream: int) -> str:
    name = text_string(profile.name)
    entries = f"/OutputConditionIdentifier {name} /Info {name} /DestOutputProfile {stream} 0 R"
    return f"<< /Type /OutputIntent /S /GTS_PDFX {entries} >>"


def _page(boxes: Boxes) -> str:
    named = {"Media": boxes.media, "Bleed": boxes.bleed, "Trim": boxes.trim}
    written = " ".join(
        f"/{name}Box [{' '.join(f'{side:.4f}' for side in box)}]" for name, box in named.items()
    )
    resources = f"<< /XObject << /Poster {IMAGE} 0 R >> /ColorSpace << /Own [/ICCBased {PROFILE} 0 R] >> >>"
    return f"<< /Type /Page /Parent {PAGES} 0 R {written} /Resources {resources} /Contents {CONTENT} 0 R >>"


def _content(boxes: Boxes, labels: Labels) -> bytes:
    left, bottom, right, top = boxes.bleed
    draw = f"q {right - left:.4f} 0 0 {top - bottom:.4f} {left:.4f} {bottom:.4f} cm /Poster Do Q\n"
    if labels.crop_marks:
        ink = "/Own CS " + ("1 1 1 1 SC" if labels.profile.space == "CMYK" else "0 0 0 SC")
        draw += f"q {ink} 0.25 w {_marks(boxes)} Q\n"
    return draw.encode()


def _marks(boxes: Boxes) -> str:
    """Two lines at each corner, on the trim's edges, clear of the bleed."""
    unit = PT_PER_MM / boxes.reduction
    near, far = MARK_GAP_MM * unit, (MARK_GAP_MM + MARK_MM) * unit
    left, bottom, right, top = boxes.bleed
    lines = []
    for x in (boxes.trim[0], boxes.trim[2]):
        lines += [(x, bottom - near, x, bottom - far), (x, top + near, x, top + far)]
    for y in (boxes.trim[1], boxes.trim[3]):
        lines += [(left - near, y, left - far, y), (right + near, y, right + far, y)]
    return " ".join(f"{a:.4f} {b:.4f} m {c:.4f} {d:.4f} l S" for a, b, c, d in lines)


def _information(labels: Labels) -> str:
    made = labels.moment.strftime("D:%Y%m%d%H%M%SZ")
    title = text_string(labels.title)
    dates = f"/CreationDate ({made}) /ModDate ({made})"
    return f"<< /Title {title} /Creator (imax-dist) /Producer (imax-dist) {dates} /Trapped /False >>"


def text_string(text: str) -> str:
    """A PDF string of any letters."""
    return "<feff" + text.encode("utf-16-be", "replace").hex() + ">"
