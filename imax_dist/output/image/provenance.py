"""The recipe of a file, whatever its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.image.jpeg import SOI, joined_packet
from imax_dist.output.image.png import read_recipe as read_from_png_or_json
from imax_dist.output.image.png_stream import SIGNATURE
from imax_dist.output.image.xmp import find_packet, recipe_in

LONGEST_LABELS = 64 << 20


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a JSON, PNG, TIFF, JPEG or PDF file. Raises MissingInput or BadManifest."""
    if not path.is_file():
        raise MissingInput(f"recipe {path} does not exist")
    if path.suffix.lower() == ".json":
        return read_from_png_or_json(path)
    recipe = find_recipe(path)
    if recipe is None:
        raise BadManifest(f"{path} carries no recipe; was it made or re-saved by another program?")
    return recipe


def find_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe inside a picture or PDF, or None. Raises BadManifest if there is a torn one."""
    with path.open("rb") as file:
        start = file.read(8)
    packet = _long_packet(path) if start.startswith(SOI) else None
    packet = packet or find_packet(path)
    recipe = None if packet is None else recipe_in(packet, where=str(path))
    if recipe is None and start == SIGNATURE:
        return _in_png_text(path)
    return recipe


def _long_packet(path: Path) -> bytes | None:
    with path.open("rb") as file:
        return joined_packet(file.read(LONGEST_LABELS))


def _in_png_text(path: Path) -> dict[str, Any] | None:
    try:
        return read_from_png_or_json(path)
    except BadManifest as error:
        if "carries no recipe" in str(error):
            return None
        raise
