"""The prompt a picture carries: in its recipe, or as AUTOMATIC1111 and ComfyUI write it.

AUTOMATIC1111: text ``parameters`` of a PNG, or the EXIF user comment; the prompt ends before the negative one
or the settings. ComfyUI: text ``prompt`` of a PNG, the graph of nodes as JSON.
"""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.errors import BadManifest
from imax_dist.output.image.png import SIGNATURE
from imax_dist.output.image.provenance import find_recipe

LONGEST = 4 << 20
PARAMETERS, GRAPH = "parameters", "prompt"
ENDS = ("\nNegative prompt:", "\nSteps: ")
EXIF, USER_COMMENT = 0x8769, 0x9286
WITH_EXIF = ("JPEG", "WEBP", "AVIF", "TIFF")
UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, LookupError, TypeError, EOFError, struct.error,
              AttributeError, OverflowError)  # fmt: skip
"""What Pillow raises for damaged files of these kinds."""
LINKS = ("positive", "conditioning", "guider", "text", "string", "value")
"""Inputs of a ComfyUI node that lead to the words, in this order."""
TEXTS = ("text", "t5xxl", "text_g", "string", "value", "clip_l")
DEEPEST = 50


class FoundPrompt(NamedTuple):
    """The words, and where they stood."""

    text: str
    origin: str


def find_prompt(path: Path) -> FoundPrompt | None:
    """The prompt in a picture, if it carries one. Raises BadManifest for one that is not UTF-8."""
    recipe = find_recipe(path)
    request = recipe.get("request") if recipe else None
    if isinstance(request, Mapping) and str(request.get("prompt") or "").strip():
        return FoundPrompt(str(request["prompt"]), "its recipe")
    with path.open("rb") as file:
        is_png = file.read(8) == SIGNATURE
    texts = dict(_png_texts(path)) if is_png else {PARAMETERS: _user_comment(path)}
    words = _before_settings(texts.get(PARAMETERS, ""))
    if words:
        return FoundPrompt(words, "its AUTOMATIC1111 text")
    words = _of_graph(texts.get(GRAPH, ""))
    try:
        words.encode()
    except UnicodeEncodeError as error:  # an escape of JSON that is no letter
        raise _unreadable(path) from error
    return FoundPrompt(words, "its ComfyUI graph") if words else None


def _before_settings(text: str) -> str:
    for end in ENDS:
        text = text.partition(end)[0]
    return "" if text.startswith(ENDS[1].strip()) else text.strip()


def _png_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Key and text of the chunks before the pixels that may hold a prompt."""
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"IDAT", b"IEND"):
                return
            after = file.tell() + length + 4
            if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= LONGEST:
                key, _, body = file.read(length).partition(b"\0")
                if key.decode("latin-1") in (PARAMETERS, GRAPH):
                    yield key.decode("latin-1"), _decoded(kind, body, path)
            file.seek(after)


def _decoded(kind: bytes, body: bytes, path: Path) -> str:
    """The text of a chunk after its key; iTXt is UTF-8, the others Latin-1."""
    packed = kind == b"zTXt" or (kind == b"iTXt" and body[:1] == b"\1")
    if kind == b"zTXt":
        body = body[1:]
    elif kind == b"iTXt":
        body = body[2:].split(b"\0", 2)[-1]
    try:
        plain = zlib.decompressobj().decompress(body, LONGEST) if packed else body
        return plain.decode("utf-8" if kind == b"iTXt" else "latin-1")
    except (zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path) from error


def _user_comment(path: Path) -> str:
    """EXIF's, of a JPEG or WebP: eight bytes that name the code, then the text."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=WITH_EXIF) as image:
            comment = image.getexif().get_ifd(EXIF).get(USER_COMMENT, b"")
    except (*UNREADABLE, Image.DecompressionBombError):
        return ""  # libvips reads more kinds of files; none of those carries a prompt here
    if not isinstance(comment, bytes):
        return comment if isinstance(comment, str) else ""
    code, text = bytes(comment[:8]), bytes(comment[8:])
    try:
        if code.startswith(b"UNICODE"):
            little = text[1::2].count(0) > text[::2].count(0)
            return text.decode("utf-16-le" if little else "utf-16-be")
        return text.decode("utf-8") if code.startswith((b"ASCII", bytes(8))) else ""
    except UnicodeDecodeError as error:
        raise _unreadable(path) from error


def _of_graph(text: str) -> str:
    """The words that the first sampler of a ComfyUI graph is led by; empty if the graph does not say."""
    try:
        nodes = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return ""
    if not isinstance(nodes, dict):
        return ""
    inputs = {str(name): _inputs(node) for name, node in nodes.items()}
    for own in inputs.values():
        for name in ("positive", "guider"):
            if _is_link(own.get(name)):
                return _followed(inputs, own[name][0], DEEPEST)
    return ""


def _inputs(node: Any) -> Mapping[str, Any]:
    own = node.get("inputs") if isinstance(node, Mapping) else None
    return own if isinstance(own, Mapping) else {}


def _followed(inputs: Mapping[str, Mapping[str, Any]], name: Any, depth: int) -> str:
    """The first text on the way from a node against its links."""
    own = inputs.get(str(name), {})
    for key in TEXTS:
        if isinstance(own.get(key), str) and own[key].strip():
            return str(own[key]).strip()
    for key in LINKS:
        if depth and _is_link(own.get(key)):
            return _followed(inputs, own[key][0], depth - 1)
    return ""


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)


def _unreadable(path: Path) -> BadManifest:
    return BadManifest(f"{path}: the prompt text in it is not UTF-8; give a prompt of your own")
