"""PNG files that carry the recipe of their picture."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.atomic import write_file
from imax_dist.output.image.bands import Bands, bands_of_array
from imax_dist.output.image.pixels import EightBit
from imax_dist.output.image.png_stream import (
    SIGNATURE,
    SOFTWARE,
    chunk,
    header_chunk,
    packet_chunk,
    resolution_chunk,
    write_rows,
)
from imax_dist.output.image.xmp import packet

RECIPE_KEY = "imax-recipe"
LARGEST_RECIPE = 4 << 20


def write_png(
    path: Path, image: EightBit | Bands, recipe: dict[str, Any], *, dpi: float | None = None
) -> None:
    """Write 8-bit RGB, an array (H, W, 3) or bands, with the recipe as compressed text.

    The same input gives the same file. Memory does not grow with the height of bands.
    """
    bands = image if isinstance(image, Bands) else bands_of_array(image)
    text = zlib.compress(json.dumps(recipe, ensure_ascii=False).encode())
    xmp = packet(recipe, media="image/png", whole=False).encode()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(SIGNATURE + header_chunk(bands))
            if dpi is not None:
                file.write(resolution_chunk(dpi))
            file.write(chunk(b"tEXt", b"Software\0" + SOFTWARE))
            file.write(chunk(b"iTXt", RECIPE_KEY.encode() + b"\0\1\0\0\0" + text))
            file.write(packet_chunk(xmp))
            write_rows(file, bands)

    write_file(path, write)


def write_plain_png(path: Path, image: EightBit) -> None:
    """Write (H, W, 3) bytes and nothing else."""
    picture = Image.fromarray(image)
    write_file(path, lambda temporary: picture.save(temporary, format="PNG"))


def png_bytes(image: EightBit) -> bytes:
    """(H, W, 3) bytes as a PNG in memory."""
    memory = io.BytesIO()
    Image.fromarray(image).save(memory, format="PNG")
    return memory.getvalue()


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a PNG or a JSON file. Raises MissingInput or BadManifest if there is none."""
    if not path.is_file():
        raise MissingInput(f"recipe {path} does not exist")
    text = _text_of_png(path) if path.suffix.lower() == ".png" else _text_of_json(path)
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{path} holds no readable recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise BadManifest(f"{path} holds no readable recipe: its top level is not an object")
    return recipe


def read_pixels(path: Path) -> EightBit:
    """The pixels of an image file as (H, W, 3) bytes. Raises MissingInput or BadManifest."""
    import numpy as np

    if not path.is_file():
        raise MissingInput(f"image {path} does not exist")
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadManifest(f"{path} is not a readable image: {error}") from error


def _text_of_png(path: Path) -> str:
    try:
        with PngImagePlugin.PngImageFile(path) as picture:  # Image.open refuses posters above 179 megapixels
            text = picture.info.get(RECIPE_KEY)
    except (SyntaxError, OSError, ValueError) as error:
        raise BadManifest(f"{path} is not a readable PNG: {error}") from error
    if text is None:
        raise BadManifest(f"{path} carries no recipe; was it made or re-saved by another program?")
    return str(text)


def _text_of_json(path: Path) -> str:
    if path.stat().st_size > LARGEST_RECIPE:
        raise BadManifest(f"{path} is larger than any recipe ({LARGEST_RECIPE >> 20} MiB)")
    return path.read_text(encoding="utf-8", errors="replace")
