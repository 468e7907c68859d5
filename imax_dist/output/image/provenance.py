"""The recipe of a file, whatever its kind."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.image.jpeg import SOI, joined_packet
from imax_dist.output.image.png import RECIPE_KEY, SIGNATURE
from imax_dist.output.image.xmp import find_packet, recipe_in

LONGEST_LABELS = 64 << 20
LARGEST_RECIPE = 4 << 20
ENVIRONMENT_KEYS = ("environment", "surroundings")
"""What recipes call it, and what they called it before."""


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a JSON, PNG, TIFF, JPEG or PDF file. Raises MissingInput or BadManifest."""
    if not path.is_file():
        raise MissingInput(f"recipe {path} does not exist")
    recipe = _of_json(path) if path.suffix.lower() == ".json" else find_recipe(path)
    if recipe is None:
        raise BadManifest(f"{path} carries no recipe; was it made or re-saved by another program?")
    return recipe


def find_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe inside a picture or PDF, or None. Raises BadManifest if there is a damaged one."""
    with path.open("rb") as file:
        start = file.read(8)
    if path.suffix.lower() == ".png" and start != SIGNATURE:
        raise BadManifest(f"{path} is not a readable PNG: it does not begin as one")
    packet = _long_packet(path) if start.startswith(SOI) else None
    packet = packet or find_packet(path)
    recipe = None if packet is None else recipe_in(packet, where=str(path))
    return _of_png(path) if recipe is None and start == SIGNATURE else recipe


def environment_in(recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """Versions, device and ranks of a recipe that may have been edited; empty if it has none."""
    found = ((recipe or {}).get(key) for key in ENVIRONMENT_KEYS)
    return next((section for section in found if isinstance(section, dict)), {})


def _long_packet(path: Path) -> bytes | None:
    with path.open("rb") as file:
        return joined_packet(file.read(LONGEST_LABELS))


def _of_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_RECIPE:
        raise BadManifest(f"{path} is larger than any recipe ({LARGEST_RECIPE >> 20} MiB)")
    return _parsed(path.read_text(encoding="utf-8", errors="replace"), path)


def _of_png(path: Path) -> dict[str, Any] | None:
    """The recipe before the pixels; other chunks are passed over, however large."""
    key = RECIPE_KEY + b"\0"
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while True:
            head = file.read(8)
            if len(head) < 8:
                raise BadManifest(f"{path} is not a readable PNG: it was cut off")
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"IDAT", b"IEND"):
                return None
            after = file.tell() + length + 4
            if kind == b"iTXt" and length > len(key) and file.read(len(key)) == key:
                return _parsed(_text(file.read(min(length - len(key), LARGEST_RECIPE)), path), path)
            file.seek(after)


def _text(body: bytes, path: Path) -> str:
    """Of an iTXt chunk after its key: flag, method, language and translated key, then the text."""
    compressed, text = body[:1] == b"\1", body[2:].split(b"\0", 2)[-1]
    try:
        plain = zlib.decompressobj().decompress(text, LARGEST_RECIPE) if compressed else text
    except zlib.error as error:
        raise BadManifest(f"{path} holds no readable recipe: {error}") from error
    return plain.decode("utf-8", "replace")


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{path} holds no readable recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise BadManifest(f"{path} holds no readable recipe: its top level is not an object")
    return recipe
