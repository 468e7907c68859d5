"""``imax upscale`` and ``imax redo``: a picture in, a poster and its recipe out; the rest on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imax_dist.cli import upscale
from imax_dist.cli.main import main
from imax_dist.cli.parser import VerbParser
from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.provenance import read_recipe

Imax = Callable[..., Any]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 x 75, as AUTOMATIC1111 labels it."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    info = PngInfo()
    info.add_text("parameters", "a red sun over the sea\nNegative prompt: fog\nSteps: 20, Seed: 1")
    small.resize((100, 75), Image.Resampling.BICUBIC).save(path, pnginfo=info)
    return path


@pytest.fixture(scope="module")
def large(photo: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture at twice its size."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    assert main(["upscale", str(photo), "--model", str(tiny), "--out", str(path), "-q"]) == 0
    return path


def test_a_picture_becomes_a_poster_of_twice_its_size(large: Path, photo: Path) -> None:
    assert read_pixels(large).shape == (150, 200, 3)
    recipe = read_recipe(large)
    asked = recipe["request"]
    assert (asked["prompt"], asked["guide"]) == ("a red sun over the sea", str(photo))
    assert asked["strength"] == 0.3
    (start,) = recipe["plan"]["starts"]
    assert start["kept"] == pytest.approx(0.7)
    assert start["steps"] >= 4


def test_stderr_says_prompt_crop_start_and_what_is_kept(
    imax: Imax, tiny: Path, photo: Path, tmp_path: Path
) -> None:
    outcome = imax(
        "upscale", photo, "--size", "128x128", "--strength", 0.2, "--model", tiny, "-v",
        "--out", tmp_path / "square.png",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.out.startswith(f"{tmp_path / 'square.png'}  128x128 (1.71x photo.png 75x75)  ")
    assert (
        f"guide {photo}: the prompt is 'a red sun over the sea', from its AUTOMATIC1111 text" in outcome.err
    )
    assert "100x75 was cropped to 75x75, the shape of 128x128; fit pad keeps all of it" in outcome.err
    assert "target start   0.2991, 4 steps, keeps 80% of the band of the picture before" in outcome.err
    assert "native pass" not in outcome.err


def test_generate_takes_a_picture_for_a_prompt(
    imax: Imax, tiny: Path, photo: Path, large: Path, tmp_path: Path
) -> None:
    """The two verbs are one: the same request, the same file."""
    out = tmp_path / "again.png"
    outcome = imax("generate", "--guide", photo, "--strength", 0.3, "--model", tiny, "--out", out, "-q")
    assert outcome.code == 0
    assert out.read_bytes() == large.read_bytes()


def test_the_same_command_makes_the_same_file_again(imax: Imax, tiny: Path, photo: Path, large: Path) -> None:
    """Prompt and size were left to the picture; the poster is still known as this request's."""
    before = large.read_bytes()
    assert imax("upscale", photo, "--model", tiny, "--out", large, "-q").code == 0
    assert large.read_bytes() == before
    other = imax("upscale", photo, "--model", tiny, "--out", large, "-q", "--strength", 0.5)
    assert other.code == 64
    assert "holds another picture already" in other.err


def test_a_manifest_has_the_same_fields(photo: Path, tmp_path: Path) -> None:
    from imax_dist.jobs.manifest.read import read_manifest
    from imax_dist.jobs.settings import Limits

    fields = {"guide": str(photo), "scale": 3, "strength": 0.4, "resemblance": 0.8, "fit": "pad"}
    lines = [fields, {"guide": str(photo), "region": "0,0,32,32"}, {"guide": str(photo), "strength": 2}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = read_manifest(tmp_path / "m.jsonl", Limits())
    assert [job.request.strength for job in read.jobs] == [0.4, None]
    assert [mistake.text for mistake in read.mistakes] == [
        "strength 2 is outside 0 to 1: 0 leaves the picture as it is, 1 keeps least of it"
    ]
    small = read_manifest(tmp_path / "m.jsonl", Limits(megapixels=0.05))
    assert small.mistakes[0].text == "size 300x225 is over this pool's 0.05 megapixels"


def test_a_region_of_the_poster_is_made_anew(imax: Imax, tiny: Path, large: Path) -> None:
    """Model and prompt are the poster's; outside the region its pixels are."""
    outcome = imax("redo", large, "--trust-recipe", "--region", "40,30,64,64", "--seed", 3, "--steps", 4)
    out = large.with_name("large-redo.png")
    assert outcome.code == 0
    assert outcome.out.startswith(f"{out}  200x150 (40,30,64,64 again)")
    before, after = read_pixels(large), read_pixels(out)
    changed = (before != after).any(axis=2)
    assert changed[30:94, 40:104].mean() > 0.8
    changed[30:94, 40:104] = False
    assert not changed.any()
    asked = read_recipe(out)["request"]
    assert (asked["model"], asked["prompt"], asked["region"]) == (
        str(tiny), "a red sun over the sea", "40,30,64,64",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--region", "180,0,64,64"], 64, "region 180,0,64,64 ends at 244,64, but the poster is 200x150"),
        (["--region", "a"], 64, "region 'a' is not X,Y,WIDTH,HEIGHT in pixels"),
        (["--region", "0,0,32,32", "--strength", "3"], 64, "strength 3 is outside 0 to 1"),
        (["--region", "0,0,32,32", "--out", "x.jpg"], 64, "kept bit for bit, which .jpg cannot hold"),
        ([], 2, "--region"),
    ],
)
def test_a_redo_that_cannot_be_is_one_sentence(
    imax: Imax, large: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    outcome = imax("redo", large, "--trust-recipe", "--out", tmp_path / "out.png", *options)
    assert not (tmp_path / "out.png").exists()
    assert (outcome.code, outcome.out) == (code, "")
    assert len(outcome.err.splitlines()) == 1
    assert message in outcome.err
    assert outcome.err.startswith("imax redo: ")


def damaged(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        contents = {
            "words.png": b"no picture at all",
            "empty.png": b"",
            "bomb.png": bomb(),
        }
        path.write_bytes(contents[name])
        return path

    return make


def bomb() -> bytes:
    """A PNG whose header promises 60 000 x 60 000 pixels."""
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def missing(folder: Path) -> Path:
    return folder / "missing.png"


def not_utf8(folder: Path) -> Path:
    info = PngInfo()
    info.add_itxt("parameters", "caf\u00e9")
    path = folder / "label.png"
    Image.new("RGB", (32, 32)).save(path, pnginfo=info)
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xfe"))
    return path


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (damaged("words.png"), 65, "is not a readable"),
        (damaged("empty.png"), 65, "is empty"),
        (damaged("bomb.png"), 65, ""),
        (missing, 66, "missing.png does not exist"),
        (not_utf8, 65, "the prompt text in it is not UTF-8; give a prompt of your own"),
    ],
)
def test_a_picture_that_cannot_be_read_leaves_nothing(
    imax: Imax, tiny: Path, tmp_path: Path, make: Callable[[Path], Path], code: int, message: str
) -> None:
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = imax("upscale", path, "--model", tiny, "--out", tmp_path / "out.png")
    assert outcome.code == code
    assert (outcome.out, len(outcome.err.splitlines())) == ("", 1)
    assert message in outcome.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_poster_of_16_bits_is_not_made_anew_in_8(imax: Imax, tmp_path: Path) -> None:
    deep = np.full((64, 64), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    outcome = imax("redo", tmp_path / "deep.png", "--region", "0,0,32,32")
    assert outcome.code == 64
    assert "has more than the 8 bits a colour that a PNG is written with; write tif" in outcome.err
    assert not (tmp_path / "deep-redo.png").exists()


@pytest.mark.parametrize(
    ("options", "strength"),
    [
        ([], 0.3),
        (["--strength", "0.2"], 0.2),
        (["--set", "start.sigma=0.2"], None),
        (["--grid", "start.sigma=.2,.35"], None),
        (["--preset", "quick"], None),
        (["--preset", "imax", "--set", "rope.rule=none"], 0.3),
    ],
)
def test_the_strength_is_ours_only_where_nothing_says_where_to_start(
    options: list[str], strength: float | None
) -> None:
    parser = VerbParser()
    upscale.add_arguments(parser)
    chosen = parser.parse_args(["photo.jpg", *options])
    upscale.prepare(chosen)
    assert chosen.strength == strength


def test_a_prompt_of_bytes_that_are_no_text_is_one_sentence(imax: Imax, photo: Path, tmp_path: Path) -> None:
    outcome = imax("upscale", photo, "--prompt", "a boat \udcff", "--out", tmp_path / "out.png")
    assert (outcome.code, len(outcome.err.splitlines())) == (64, 1)
    assert "the prompt is not text: it is not valid UTF-8" in outcome.err
