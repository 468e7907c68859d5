"""Opening a picture to be finished or checked: its rows in bands, its profile and its recipe."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import ROWS, Band, Bands, bands_of_array
from imax_dist.output.image.colour import vips
from imax_dist.output.image.png_stream import own_layout, read_own
from imax_dist.output.image.profile import Profile, parse_profile
from imax_dist.output.image.provenance import find_recipe

MOST_IN_MEMORY = 150_000_000
"""Pixels that are decoded at once; larger PNG and JPEG files are read through libvips."""
ICC_TAG = 34_675
TORN = (OSError, ValueError, RuntimeError, struct.error, zlib.error, IndexError, KeyError)
"""What decoders raise for damaged files."""


@dataclass(frozen=True)
class Picture:
    """An opened picture; ``recipe`` is None if another program made it."""

    bands: Bands
    profile: Profile | None = None
    recipe: dict[str, Any] | None = None


def open_picture(path: Path) -> Picture:
    """Open TIFF, PNG, JPEG or WebP. Raises MissingInput, or BadManifest for what cannot be read."""
    if not path.is_file():
        raise MissingInput(f"picture {path} does not exist")
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        raise BadManifest(f"{path} is empty")
    if start.startswith(b"%PDF"):
        raise BadManifest(f"{path} is a PDF, a finished print; give the tif or png it was made from")
    reader = _read_tiff if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else _read_other
    bands, profile = reader(path)
    return Picture(bands, profile, find_recipe(path))


def _read_tiff(path: Path) -> tuple[Bands, Profile | None]:
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            icc = page.tags.valueof(ICC_TAG)
            bits, samples = page.bitspersample, page.samplesperpixel
            usable = page.planarconfig == 1 and samples in (3, 4) and page.sampleformat in (1, 3)
            if samples == 4 and page.photometric.name != "SEPARATED":
                usable = False
            size = ImageSize(page.imagewidth, page.imagelength)
    except (*TORN, tifffile.TiffFileError) as error:
        raise BadManifest(f"{path} is not a readable TIFF: {error}") from error
    if not usable or bits not in (8, 16, 32):
        raise BadManifest(f"{path}: only RGB or CMYK TIFFs of 8, 16 or 32 bits, channels together, are read")
    profile = parse_profile(icc, where=f"{path}: its profile") if icc else None
    return Bands(size, samples, bits, lambda: _tiff_rows(path)), profile


def _tiff_rows(path: Path) -> Iterator[Band]:
    """One row of tiles (or one strip) at a time."""
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            width, height = page.imagewidth, page.imagelength
            across = -(-width // page.tilewidth) if page.is_tiled else 1
            rows = page.tilelength if page.is_tiled else page.rowsperstrip
            for first in range(0, len(page.dataoffsets), across):
                yield _tile_row(page, range(first, first + across))[: height - first // across * rows, :width]
    except (*TORN, tifffile.TiffFileError) as error:
        raise BadManifest(f"{path} cannot be read to its end: {error}") from error


def _tile_row(page: Any, indices: range) -> Band:
    tiles = []
    handle = page.parent.filehandle
    for index in indices:
        length = page.databytecounts[index]
        handle.seek(page.dataoffsets[index])
        data = handle.read(length)
        if len(data) < length or not length:
            raise ValueError("the file was cut off")
        decoded, _, shape = page.decode(data, index, _fullsize=True)
        tiles.append(decoded.reshape(-1, *decoded.shape[-2:])[: max(shape[1], 1)])
    return np.concatenate(tiles, axis=1)


def _read_other(path: Path) -> tuple[Bands, Profile | None]:
    own = own_layout(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            size = ImageSize(*picture.size)
            icc, mode, kind = picture.info.get("icc_profile"), picture.mode, picture.format
    except Image.DecompressionBombError:
        size, icc, mode, kind = None, None, "RGB", "PNG"
    except (UnidentifiedImageError, *TORN) as error:
        raise BadManifest(f"{path} is not a readable picture: {error}") from error
    profile = parse_profile(icc, where=f"{path}: its profile") if icc else None
    if own is not None:
        return read_own(path, *own), profile
    if mode == "CMYK":
        return _whole(path, "CMYK"), profile
    deep = kind == "PNG" and _png_bits(path) == 16
    if deep or size is None or size.area > MOST_IN_MEMORY:
        return _through_vips(path), profile
    return _whole(path, "RGB"), profile if profile and profile.space == "RGB" else None


def _whole(path: Path, mode: str) -> Bands:
    try:
        with Image.open(path) as picture:
            return bands_of_array(np.asarray(picture.convert(mode)))
    except TORN as error:
        raise BadManifest(f"{path} cannot be read to its end: {error}") from error


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]


def _through_vips(path: Path) -> Bands:
    """Sequential reading of what Pillow would hold whole, or in 8 bits only."""
    pyvips = vips()
    try:
        image = pyvips.Image.new_from_file(str(path), access="sequential")
    except pyvips.Error as error:
        raise BadManifest(f"{path} is not a readable picture: {error.message}") from error
    bits = {"uchar": 8, "ushort": 16}.get(image.format)
    if bits is None or image.bands not in (3, 4):
        raise BadManifest(f"{path}: only RGB pictures of 8 or 16 bits are read")
    size = ImageSize(image.width, image.height)
    return Bands(size, 3, bits, lambda: _vips_rows(path, bits))


def _vips_rows(path: Path, bits: int) -> Iterator[Band]:
    pyvips = vips()
    try:
        image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on="truncated")[:3]
        region = pyvips.Region.new(image)
        for top in range(0, image.height, ROWS):
            rows = min(ROWS, image.height - top)
            yield np.ndarray((rows, image.width, 3), f"u{bits // 8}", region.fetch(0, top, image.width, rows))
    except pyvips.Error as error:
        raise BadManifest(f"{path} cannot be read to its end: {error.message}") from error


def require_rgb(picture: Picture, where: str) -> None:
    """Raises BadValue for a picture that is CMYK already."""
    if picture.bands.channels != 3:
        raise BadValue(f"{where} is CMYK already; finish the RGB original")


def shrunk(bands: Bands, side: int) -> Band:
    """The whole picture in memory, 8 bits, its longer side at most ``side`` px."""
    from imax_dist.output.image.dither import with_bits
    from imax_dist.output.image.resample import scaled

    longest = max(bands.size.width, bands.size.height)
    if longest > side:
        width, height = (max(16, round(n * side / longest)) for n in (bands.size.width, bands.size.height))
        bands = scaled(bands, ImageSize(width, height))
    return np.concatenate(list(with_bits(bands, 8).read()))
