"""A PNG carries its recipe, is the same file every time, and reads back bit for bit."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imax_dist.errors import BadManifest, MissingInput
from imax_dist.output.image.png import read_pixels, write_plain_png, write_png
from imax_dist.output.image.provenance import LARGEST_RECIPE, read_recipe

RECIPE: dict[str, Any] = {"format": "imax-recipe/1", "request": {"prompt": "été\n“sun”", "seed": 2**62}}


def picture(height: int = 21, width: int = 19) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_pixels_and_recipe_read_back_as_they_were(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(), RECIPE)
    assert np.array_equal(read_pixels(tmp_path / "a.png"), picture())
    assert read_recipe(tmp_path / "a.png") == RECIPE


def test_the_same_picture_and_recipe_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, picture(), RECIPE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_any_viewer_reads_it_as_eight_bit_colour(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(), RECIPE)
    with Image.open(tmp_path / "a.png") as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (19, 21))
        assert opened.info["Software"].startswith("imax-dist")


def test_it_says_that_its_colours_are_srgb(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(), RECIPE)
    write_plain_png(tmp_path / "b.png", picture())
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as opened:
            assert opened.info["srgb"] == 0
            assert np.array_equal(np.asarray(opened), picture())


def test_a_recipe_reads_from_json_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    assert read_recipe(tmp_path / "a.recipe.json") == RECIPE


def test_the_recipe_of_a_poster_larger_than_viewers_allow_is_read_without_its_pixels(tmp_path: Path) -> None:
    """65536 x 16000 is a thousand megapixels; this file has the header and the recipe alone."""
    header = struct.pack(">IIBBBBB", 65_536, 16_000, 8, 2, 0, 0, 0)
    text = b"imax-recipe\0\1\0\0\0" + zlib.compress(json.dumps(RECIPE).encode())
    start = chunk(b"IHDR", header) + chunk(b"iTXt", text) + chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + start + chunk(b"IEND", b""))
    assert read_recipe(tmp_path / "huge.png") == RECIPE


@pytest.mark.parametrize("name", ["none.png", "none.json", "."])
def test_a_file_that_is_not_there_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingInput, match=r"recipe .* does not exist"):
        read_recipe(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", r"a.png is not a readable PNG"),
        ("a.png", b"\xff\xd8\xff\xe0 a JPEG", r"a.png is not a readable PNG"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"a.png is not a readable PNG"),
        ("a.json", b"", r"a.json holds no readable recipe: Expecting value"),
        ("a.json", b"{'prompt': 1}", r"a.json holds no readable recipe: Expecting property name"),
        ("a.json", b"[1, 2]", r"a.json holds no readable recipe: its top level is not an object"),
        ("a.json", b"\xff\xfe\x00", r"a.json holds no readable recipe"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadManifest, match=message):
        read_recipe(tmp_path / name)


def test_a_png_of_another_program_carries_no_recipe(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(BadManifest, match=r"a.png carries no recipe; was it made or re-saved by another"):
        read_recipe(tmp_path / "a.png")


def test_a_recipe_that_is_no_json_inside_a_png_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(), RECIPE)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"iTXt") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    torn = chunk(b"iTXt", b"imax-recipe\0\0\0\0\0{")
    (tmp_path / "a.png").write_bytes(content[:start] + torn + content[end:])
    with pytest.raises(BadManifest, match=r"a.png holds no readable recipe"):
        read_recipe(tmp_path / "a.png")


def test_json_larger_than_any_recipe_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(LARGEST_RECIPE + 1)
    with pytest.raises(BadManifest, match=r"a.json is larger than any recipe \(4 MiB\)"):
        read_recipe(tmp_path / "a.json")


def test_pixels_of_what_is_no_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(BadManifest, match=r"a.png is not a readable image"):
        read_pixels(tmp_path / "a.png")
    with pytest.raises(MissingInput, match=r"image .*none.png does not exist"):
        read_pixels(tmp_path / "none.png")
