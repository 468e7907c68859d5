"""`imax finish` and `imax verify` as commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile
from pictures import names, png_poster
from PIL import Image

Imax = Callable[..., Any]


def test_from_a_prompt_to_a_pdf_and_back_to_the_same_bits(imax: Imax, tmp_path: Path) -> None:
    """The recipe inside the PDF renders the very picture again."""
    sheet = ("--paper", "8x11cm", "--dpi", 40, "--bleed", "3mm")
    poster = tmp_path / "sea.tif"
    made = imax(
        "generate",
        "a red sun over the sea",
        *sheet,
        "--steps",
        1,
        "--native-steps",
        1,
        "--out",
        poster,
        "--json",
    )
    assert made.code == 0, made.err
    assert tifffile.imread(poster).dtype == "uint16"
    assert tifffile.imread(poster).shape == (183, 135, 3)
    finished = imax("finish", poster, "--crop-marks", "--json")
    assert finished.code == 0, finished.err
    record = json.loads(finished.out)
    assert (record["paper"], record["bleed_mm"], record["kind"]) == ("8x11cm", 3.0, "pdf")
    assert imax("verify", poster, tmp_path / "sea-print.pdf").code == 0
    again = imax(
        "generate", "--recipe", tmp_path / "sea-print.pdf", "--out", tmp_path / "again.png", "--json"
    )
    assert json.loads(again.out)["same_bits"] is True
    assert json.loads(again.out)["pixels_sha256"] == json.loads(made.out)["pixels_sha256"]


def test_a_request_may_ask_for_print_files(tmp_path: Path) -> None:
    """What a batch delivers: the same writer, the request's own `output`."""
    import torch

    from imax_dist.output.image.poster import write_poster
    from imax_dist.output.image.verify import verify
    from imax_dist.pipeline.request import Request
    from imax_dist.settings_mapping import to_mapping

    request = Request(
        prompt="sea", paper="4x6cm", dpi=50, output={"tif": {}, "pdf": {"crop_marks": True}, "png": {}}
    )
    width, height = map(int, str(request.size).split("x"))
    recipe = {"format": "imax-recipe/1", "request": to_mapping(request)}
    complete = write_poster(tmp_path / "poster.png", torch.rand(height, width, 3), recipe)
    expected = ["poster-print.png", "poster.pdf", "poster.png", "poster.recipe.json", "poster.tif"]
    assert names(tmp_path) == expected
    assert sorted(complete["files"]) == ["poster-print.png", "poster.pdf", "poster.tif"]
    assert complete["files"]["poster.tif"]["bits"] == 16
    assert all(verify(tmp_path / name).matches for name in expected if not name.endswith(".json"))


def test_a_proof_has_no_print_files(tmp_path: Path) -> None:
    import torch

    from imax_dist.output.image.poster import write_poster

    request = {"prompt": "sea", "paper": "A2", "dpi": 200, "output": {"pdf": {}}}
    write_poster(tmp_path / "proof.png", torch.rand(20, 20, 3), {"request": request, "proof": True})
    assert names(tmp_path) == ["proof.png", "proof.recipe.json"]


def test_a_print_file_that_cannot_be_made_leaves_no_poster(tmp_path: Path) -> None:
    import torch

    from imax_dist.errors import BadValue
    from imax_dist.output.image.poster import write_poster

    recipe = {"request": {"prompt": "sea", "paper": "A2", "dpi": 200, "output": {"pdf": {}}}}
    with pytest.raises(BadValue, match="20x20 px on A2 are less than 1 dpi"):
        write_poster(tmp_path / "poster.png", torch.rand(20, 20, 3), recipe)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--dpi", "0"), 64, "dpi 0 is outside 1 to 2400"),
        (("--paper", "A11"), 64, "paper 'A11' is neither a known sheet"),
        (("--paper", "A4", "--bleed", "3"), 64, "length '3' is not a number with a unit"),
        (("--bleed", "3mm"), 64, "bleed and landscape belong to a paper"),
        (("--to", "docx"), 64, "posters are written as tif"),
        (("--to", "pdf", "--out", "x.tif"), 64, "--to pdf and --out x.tif contradict each other"),
        (("--icc", "missing.icc"), 66, "ICC profile missing.icc does not exist"),
        (("--intent", "bright"), 78, "command line: intent: 'bright' is not a choice"),
        (("--quality", "0"), 64, "quality 0 is outside 1 to 100"),
        (("--sign", "cert.pem"), 64, "--sign CERT and --key FILE belong together"),
    ],
)
def test_bad_options_are_one_sentence(
    imax: Imax, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    outcome = imax("finish", png_poster(tmp_path / "p.png"), *options)
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert names(tmp_path) == ["p.png"]


def test_a_poster_is_not_overwritten_by_its_print(imax: Imax, tmp_path: Path) -> None:
    poster = png_poster(tmp_path / "p.png")
    before = poster.read_bytes()
    outcome = imax("finish", poster, "--out", poster)
    assert (outcome.code, poster.read_bytes()) == (64, before)
    assert "is the poster itself" in outcome.err


def test_a_file_that_is_no_print_of_the_picture_is_kept(imax: Imax, tmp_path: Path) -> None:
    poster, other = png_poster(tmp_path / "p.png"), tmp_path / "holiday.tif"
    other.write_bytes(b"somebody's own picture")
    outcome = imax("finish", poster, "--out", other)
    assert (outcome.code, other.read_bytes()) == (64, b"somebody's own picture")
    assert outcome.err.endswith("is not a print of this picture; give another --out, or --overwrite\n")
    assert imax("finish", poster, "--out", other, "--overwrite").code == 0
    assert imax("finish", poster, "--out", other, "--bits", 16).code == 0, "its own print is made again"


def test_the_name_of_an_omitted_out_is_asked_for_too(imax: Imax, tmp_path: Path) -> None:
    poster, other = png_poster(tmp_path / "p.png"), tmp_path / "p-print.pdf"
    other.write_bytes(b"somebody's own file")
    outcome = imax("finish", poster)
    assert (outcome.code, other.read_bytes()) == (64, b"somebody's own file")
    assert "p-print.pdf is not a print of this picture" in outcome.err
    other.unlink()
    assert imax("finish", poster).code == 0
    assert imax("finish", poster, "--lossless").code == 0, "its own print is made again"


def test_beside_a_picture_without_a_recipe_no_file_is_replaced_unasked(imax: Imax, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "teal").save(photo)
    assert imax("finish", photo, "--paper", "10x15cm", "--cut").code == 0
    outcome = imax("finish", photo, "--paper", "13x18cm", "--cut")
    assert outcome.code == 64
    assert "photo-print.pdf already exists, and without a recipe it cannot be recognised" in outcome.err
    assert imax("finish", photo, "--paper", "13x18cm", "--cut", "--overwrite").code == 0


def test_a_file_in_a_panels_place_is_kept(imax: Imax, tmp_path: Path) -> None:
    poster, other = png_poster(tmp_path / "p.png"), tmp_path / "wall-r1c2.tif"
    other.write_bytes(b"somebody's own picture")
    outcome = imax("finish", poster, "--panels", "2x1", "--overlap", "1mm", "--out", tmp_path / "wall.tif")
    assert (outcome.code, other.read_bytes()) == (64, b"somebody's own picture")
    assert "wall-r1c2.tif is not a print of this picture" in outcome.err
    assert not (tmp_path / "wall-r1c1.tif").exists()


def test_a_missing_poster_is_reported(imax: Imax, tmp_path: Path) -> None:
    assert imax("finish", tmp_path / "no.png").code == 66
    assert imax("verify", tmp_path / "no.png").code == 66


def test_verify_has_an_exit_code(imax: Imax, tmp_path: Path) -> None:
    poster = png_poster(tmp_path / "p.png")
    imax("finish", poster, "--out", tmp_path / "q.tif")
    content = bytearray((tmp_path / "q.tif").read_bytes())
    assert imax("verify", tmp_path / "q.tif").out.strip().endswith("matches its recipe")
    (tmp_path / "q.tif").write_bytes(bytes(content[:900]) + b"\0" * 50 + bytes(content[950:]))
    assert imax("verify", tmp_path / "q.tif").code == 65


@pytest.mark.parametrize("name", ["p.docx", "p"])
def test_generate_refuses_an_unknown_ending_before_any_work(imax: Imax, tmp_path: Path, name: str) -> None:
    outcome = imax("generate", "a red sun", "--out", tmp_path / name)
    assert outcome.code == 64
    assert "give it such an ending" in outcome.err


def test_the_native_picture_is_kept_for_the_slider(imax: Imax, tiny: Path, tmp_path: Path) -> None:
    from imax_dist.output.web.batch_folder import read_folder

    how = ("--model", tiny, "--size", "100x68", "--steps", 1, "--native-steps", 1)
    poster = tmp_path / "sea.png"
    made = imax("generate", "a red sun", *how, "--keep-native", "--out", poster)
    assert made.code == 0, made.err
    (found,) = read_folder(tmp_path)
    assert found.native == tmp_path / "sea.native.png"


def test_transparent_parts_are_laid_on_the_colour_of_choice(imax: Imax, tmp_path: Path) -> None:
    Image.new("RGBA", (60, 40), (255, 0, 0, 0)).save(tmp_path / "p.png")
    made = imax("finish", tmp_path / "p.png", "--out", tmp_path / "q.png", "--background", "#0080ff")
    assert "what was transparent is on #0080ff" in made.out
    with Image.open(tmp_path / "q.png") as opened:
        assert opened.convert("RGB").getpixel((30, 20)) == (0, 128, 255)
    refused = imax("finish", tmp_path / "p.png", "--out", tmp_path / "r.png", "--background", "blue")
    assert (refused.code, (tmp_path / "r.png").exists()) == (64, False)
    assert "is not written as #rrggbb" in refused.err
