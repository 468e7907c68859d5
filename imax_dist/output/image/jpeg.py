"""JPEG of any height in bounded memory, full colour resolution (4:4:4); encoded by libvips, labelled here."""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from imax_dist.errors import BadManifest, BadValue
from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.labels import Labels
from imax_dist.output.image.vips import Sink, save_jpeg

LONGEST_SIDE = 65_500
LONGEST_HEAD = 4096
"""Of tables and frame as libvips writes them, without metadata."""
SEGMENT = 65_533
"""The most bytes a marker segment holds."""
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN = 0xDA
APPLICATION = range(0xE0, 0xF0)
COMMENT = 0xFE
XMP, XMP_MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
EXTENDED = """<x:xmpmeta xmlns:x='adobe:ns:meta/'>
<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
<rdf:Description rdf:about='' xmlns:xmpNote='http://ns.adobe.com/xmp/note/' xmpNote:HasExtendedXMP='%s'/>
</rdf:RDF></x:xmpmeta>"""
ADOBE = b"Adobe\0\x64\0\0\0\0\0"


def write_jpeg(path: Path, bands: Bands, labels: Labels) -> str:
    """Write 8-bit RGB or CMYK bands; returns the hash of the coded picture.

    Raises BadValue for a side that JPEG cannot hold, CannotWrite or NoPermission.
    """
    require_fit(path, bands)
    digest = hashlib.sha256()

    def write(temporary: Path) -> None:
        with temporary.open("r+b") as file:
            file.write(SOI + _labels(bands, labels, labels.draft))
            save_coded(bands, labels.quality, Hashing(file, digest))
            file.seek(len(SOI))
            file.write(_labels(bands, labels, labels.xmp(digest.hexdigest())))

    write_file(path, write)
    return digest.hexdigest()


def require_fit(path: Path, bands: Bands) -> None:
    """Raises BadValue for what JPEG cannot hold."""
    if max(bands.size.width, bands.size.height) > LONGEST_SIDE:
        raise BadValue(f"{path.name}: {bands.size} px, but a JPEG's side has at most {LONGEST_SIDE}; use tif")


def save_coded(bands: Bands, quality: int, sink: Sink) -> None:
    """The JPEG without its start marker and labels: tables, frame and scan head, scan, end marker."""
    body = _Body(sink)
    save_jpeg(bands, body, Q=quality, subsample_mode="off")
    body.close()


class Hashing:
    """Writes to a file and into a hash."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash) -> None:
        self._file, self._digest = file, digest

    def write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._file.write(piece)


class _Body:
    """Takes a JPEG as it is made, passes on all but its start marker and labels."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._head: bytearray | None = bytearray()

    def write(self, piece: bytes) -> None:
        """The next bytes of the file, cut anywhere; labels end within the first of them."""
        if self._head is None:
            self._sink.write(piece)
            return
        self._head += piece
        if len(self._head) > LONGEST_HEAD:
            self.close()

    def close(self) -> None:
        """Pass on what is held."""
        held, self._head = self._head, None
        if held is None:
            return
        last = 0
        for marker, first, last in _segments(bytes(held), 0):
            if marker not in APPLICATION and marker != COMMENT:
                self._sink.write(bytes(held[first:last]))
        self._sink.write(bytes(held[last:]))


def coded_hash(content: mmap.mmap, start: int) -> str:
    """The hash that ``write_jpeg`` returned, of the JPEG that starts at ``start`` of a file.

    Raises BadManifest if it is truncated or damaged.
    """
    digest = hashlib.sha256()
    try:
        for marker, first, last in _segments(content, start):
            if marker not in APPLICATION and marker != COMMENT:
                digest.update(content[first:last])
        end = content.find(EOI, last)
    except (struct.error, IndexError) as error:
        raise BadManifest("the JPEG is truncated: a segment is cut off") from error
    if end < 0:
        raise BadManifest("the JPEG ends too early; the file was cut off")
    for first in range(last, end + 2, 1 << 20):
        digest.update(content[first : min(first + (1 << 20), end + 2)])
    return digest.hexdigest()


def _segments(jpeg: bytes | mmap.mmap, start: int) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of every segment up to the head of the scan."""
    at = start + len(SOI)
    marker = 0
    while marker != START_OF_SCAN:
        if jpeg[at] != 0xFF:
            raise BadManifest("the JPEG is damaged: a marker is missing")
        marker = jpeg[at + 1]
        end = at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        yield marker, at, end
        at = end


def _labels(bands: Bands, labels: Labels, xmp: bytes) -> bytes:
    dpi = round(labels.sheet.dpi)
    segments = [_segment(0xE1, _exif(labels)), *_xmp_segments(xmp), *_icc_segments(labels.profile.data)]
    if bands.channels == 3:
        segments.insert(0, _segment(0xE0, b"JFIF\0\x01\x02\x01" + struct.pack(">HHBB", dpi, dpi, 0, 0)))
    else:
        segments.append(_segment(0xEE, ADOBE))
    return b"".join(segments)


def _exif(labels: Labels) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = labels.sheet.dpi
    exif[ExifTags.Base.ResolutionUnit] = 2
    exif[ExifTags.Base.Software] = "imax-dist"
    return exif.tobytes()


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _icc_segments(profile: bytes) -> list[bytes]:
    room = SEGMENT - len(ICC) - 2
    parts = [profile[at : at + room] for at in range(0, len(profile), room)]
    return [_segment(0xE2, ICC + bytes([n, len(parts)]) + part) for n, part in enumerate(parts, 1)]


def _xmp_segments(xmp: bytes) -> list[bytes]:
    """One segment, or for a very long prompt the packet in numbered parts (XMP part 3, 1.1.3.1)."""
    if len(XMP) + len(xmp) <= SEGMENT:
        return [_segment(0xE1, XMP + xmp)]
    name = hashlib.md5(xmp, usedforsecurity=False).hexdigest().upper().encode()
    note = EXTENDED.encode() % name
    room = SEGMENT - len(XMP_MORE) - len(name) - 8
    parts = [(at, xmp[at : at + room]) for at in range(0, len(xmp), room)]
    heads = [XMP_MORE + name + struct.pack(">II", len(xmp), at) for at, _ in parts]
    return [
        _segment(0xE1, XMP + note),
        *(_segment(0xE1, head + part) for head, (_, part) in zip(heads, parts, strict=True)),
    ]


def joined_packet(content: bytes) -> bytes | None:
    """The XMP packet that was written in numbered parts into a JPEG's labels; None if there is none.

    Raises BadManifest if the labels are damaged.
    """
    parts = []
    try:
        for marker, first, last in _segments(content, 0):
            body = content[first + 4 : last]
            if marker == 0xE1 and body.startswith(XMP_MORE):
                parts.append(body[len(XMP_MORE) + 40 :])
    except (struct.error, IndexError) as error:
        raise BadManifest("the JPEG is truncated: a segment is cut off") from error
    return b"".join(parts) or None
