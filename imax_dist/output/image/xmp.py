"""The XMP packet of a print file: that a model made it, from which words, and the whole recipe.

The packet is plain text inside TIFF, PNG, JPEG and PDF alike, so reading it needs no decoder. The hash
of the pixels is known only after they are written: it goes in place of ``UNKNOWN``, of equal length.
"""

from __future__ import annotations

import json
import mmap
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from imax_dist.errors import BadManifest
from imax_dist.version import __version__

UNKNOWN = "0" * 64
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAMESPACE = "urn:imax-dist:recipe:1/"
LONGEST_DESCRIPTION = 2_000
LARGEST_PACKET = 4 << 20
BEGIN, END = b"<?xpacket begin=", b"<?xpacket end="
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:imax="{namespace}"{namespaces}>
<dc:format>{media}</dc:format>
<xmp:CreatorTool>imax-dist {version}</xmp:CreatorTool>
{properties}
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def packet(
    recipe: Mapping[str, Any] | None,
    *,
    media: str,
    whole: bool = True,
    namespaces: str = "",
    properties: Mapping[str, str] | None = None,
    title: str | None = None,
) -> str:
    """The packet for a file of type ``media`` (image/tiff, ...).

    ``whole`` puts the recipe in; without any nothing is claimed about how the picture was made.
    ``properties`` are more elements, name -> text, of ``namespaces`` (ready-made xmlns attributes).
    """
    lines = [f"<{name}>{_clean(text)}</{name}>" for name, text in (properties or {}).items()]
    if title is not None:
        lines.append(f"<dc:title>{_in_default_language(title)}</dc:title>")
    if recipe is not None:
        lines += _provenance(recipe, whole=whole)
    return TEMPLATE.format(
        namespace=NAMESPACE,
        namespaces=namespaces,
        media=media,
        version=__version__,
        properties="\n".join(lines),
    )


def _provenance(recipe: Mapping[str, Any], *, whole: bool) -> list[str]:
    prompt = str(recipe.get("request", {}).get("prompt", ""))[:LONGEST_DESCRIPTION]
    lines = [f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"]
    if prompt:
        lines.append(f"<dc:description>{_in_default_language(prompt)}</dc:description>")
    return [*lines, f"<imax:recipe>{escape(json.dumps(recipe))}</imax:recipe>"] if whole else lines


def _in_default_language(text: str) -> str:
    return f'<rdf:Alt><rdf:li xml:lang="x-default">{_clean(text)}</rdf:li></rdf:Alt>'


def _clean(text: str) -> str:
    return escape(NOT_XML.sub(" ", text))


def find_packet(path: Path) -> bytes | None:
    """The last XMP packet of a file, found by its marks; None if there is none."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(BEGIN, 0, LARGEST_PACKET)
        if start < 0:
            start = content.rfind(BEGIN)
        end = content.find(END, start, start + LARGEST_PACKET) if start >= 0 else -1
        return content[start:end] if end >= 0 else None


def recipe_in(xmp: bytes, *, where: str) -> dict[str, Any] | None:
    """The recipe in a packet, or None. Raises BadManifest if the packet or the recipe does not parse."""
    if b"<!DOCTYPE" in xmp:  # entities can make a short text a very long one; no packet needs them
        raise BadManifest(f"{where}: its XMP packet declares a document type, which is not read here")
    try:
        root = ET.fromstring(xmp.partition(b"?>")[2].strip())
    except ET.ParseError as error:
        raise BadManifest(f"{where}: its XMP packet is damaged: {error}") from error
    tag = f"{{{NAMESPACE}}}recipe"
    texts = [node.text for node in root.iter(tag)] + [node.get(tag) for node in root.iter() if node.get(tag)]
    if not texts:
        return None
    try:
        recipe = json.loads(texts[0] or "")
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{where} holds no readable recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise BadManifest(f"{where} holds no readable recipe: its top level is not an object")
    return recipe
