"""Print files, read back by programs that are not ours."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from pdf_x4 import x4_faults
from pictures import PROMPT, cmyk_profile, gradient, names, picture, png_poster, profile_in
from PIL import Image

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.geometry import ImageSize
from imax_dist.output.image import jpeg, tiff
from imax_dist.output.image.bands import Band, Bands, bands_of_array
from imax_dist.output.image.colour import converted
from imax_dist.output.image.finish import check, finish
from imax_dist.output.image.paper import make_sheet
from imax_dist.output.image.pdf import page_boxes
from imax_dist.output.image.profile import Profile, srgb
from imax_dist.output.image.provenance import read_recipe
from imax_dist.output.image.reader import Picture, open_picture
from imax_dist.output.image.settings import FinishSettings
from imax_dist.output.image.verify import verify
from imax_dist.output.image.xmp import SOURCE_TYPE

ALL = ("p.tif", "p.png", "p.jpg", "p.pdf")


def tool(*command: str) -> str:
    """The output of an independent reader; skips where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def rendered_pdf(path: Path, dpi: int) -> Band:
    tool("pdftoppm", "-r", str(dpi), "-png", str(path), str(path.with_suffix("")))
    (page,) = path.parent.glob(f"{path.stem}-*.png")
    return np.asarray(Image.open(page).convert("RGB"))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["p.tif", "p.png"])
def test_a_lossless_file_holds_the_very_samples(tmp_path: Path, name: str, bits: int) -> None:
    finish(picture(700, 530, bits), tmp_path / name, FinishSettings(bits=bits))
    again = np.concatenate(list(open_picture(tmp_path / name).bands.read()))
    assert (again == gradient(700, 530, bits)).all()


def test_a_sixteen_bit_tiff_is_read_by_tifffile_and_libtiff(tmp_path: Path) -> None:
    finish(picture(700, 530, 16), tmp_path / "p.tif", FinishSettings(dpi=180))
    assert (tifffile.imread(tmp_path / "p.tif") == gradient(700, 530, 16)).all()
    told = tool("tiffinfo", str(tmp_path / "p.tif"))
    for line in (
        "Bits/Sample: 16",
        "Resolution: 180, 180 pixels/inch",
        "Tile Width: 512",
        "ICC Profile: <pres",
    ):
        assert line in told


def test_a_sixteen_bit_png_is_read_by_libpng(tmp_path: Path) -> None:
    finish(picture(300, 200, 16), tmp_path / "p.png", FinishSettings(dpi=180))
    assert (pyvips.Image.new_from_file(str(tmp_path / "p.png")).numpy() == gradient(300, 200, 16)).all()
    with Image.open(tmp_path / "p.png") as image:
        assert image.info["dpi"] == pytest.approx((180, 180), abs=0.01)
        assert image.info["icc_profile"] == srgb().data


@pytest.mark.parametrize("height", [16, 63, 64, 65, 128, 700])
def test_a_jpeg_joined_from_bands_equals_one_encoded_whole(tmp_path: Path, height: int) -> None:
    pixels = gradient(height, 333)
    finish(Picture(bands_of_array(pixels)), tmp_path / "ours.jpg", FinishSettings(quality=90))
    Image.fromarray(pixels).save(tmp_path / "whole.jpg", quality=90, subsampling=0)
    ours, whole = (np.asarray(Image.open(tmp_path / name)) for name in ("ours.jpg", "whole.jpg"))
    assert ours.shape == whole.shape
    assert (ours == whole).all()


def test_a_jpeg_states_its_resolution_and_profile(tmp_path: Path) -> None:
    finish(picture(), tmp_path / "p.jpg", FinishSettings(dpi=240))
    with Image.open(tmp_path / "p.jpg") as image:
        assert image.info["dpi"] == (240, 240)
        assert image.info["icc_profile"] == srgb().data


@pytest.mark.parametrize("lossless", [False, True])
def test_a_pdf_has_its_boxes_and_shows_the_picture(tmp_path: Path, lossless: bool) -> None:
    settings = FinishSettings(paper="100x150mm", bleed="3mm", dpi=50, crop_marks=True, lossless=lossless)
    size = make_sheet("100x150mm", bleed="3mm", dpi=50).pixels
    finish(picture(size.height, size.width), tmp_path / "p.pdf", settings)
    told = tool("pdfinfo", "-box", str(tmp_path / "p.pdf"))
    boxes = {line.split(":")[0]: line.split(":")[1].split() for line in told.splitlines() if "Box" in line}
    slug, bleed = 12 * 72 / 25.4, 15 * 72 / 25.4
    width, height = 130 * 72 / 25.4, 180 * 72 / 25.4
    expected = {
        "MediaBox": (0, 0, width, height),
        "BleedBox": (slug, slug, width - slug, height - slug),
        "TrimBox": (bleed, bleed, width - bleed, height - bleed),
    }
    for name, sides in expected.items():
        assert [float(side) for side in boxes[name]] == pytest.approx(sides, abs=0.006)
    page = rendered_pdf(tmp_path / "p.pdf", 50)
    inside = page[24:-24, 24:-24].astype(int)
    original = gradient(size.height, size.width)
    assert abs(inside - original[: inside.shape[0], : inside.shape[1]]).mean() < 6
    marks = page[:18, 20:60].min(axis=2)
    assert marks.min() < 120, "there is no crop mark"
    assert page[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("fields", [("icc",), ("output_intent",), ("icc", "output_intent")])
def test_a_pdf_for_a_printing_condition_is_pdf_x_4(
    tmp_path: Path, fields: tuple[str, ...], lossless: bool
) -> None:
    icc = str(cmyk_profile(tmp_path / "shop.icc"))
    settings = FinishSettings(
        paper="100x66mm", cut=True, crop_marks=True, lossless=lossless, **dict.fromkeys(fields, icc)
    )  # type: ignore[arg-type]
    finished = finish(picture(), tmp_path / "p.pdf", settings)
    assert x4_faults(tmp_path / "p.pdf") == []
    assert not any("not PDF/X-4" in note for note in finished.notes)


def test_a_pdf_without_a_printing_condition_does_not_claim_pdf_x_4(tmp_path: Path) -> None:
    finished = finish(picture(), tmp_path / "p.pdf", FinishSettings())
    assert "not PDF/X-4: that needs the profile of a press or printer (--icc or --output-intent)" in (
        finished.notes
    )
    faults = x4_faults(tmp_path / "p.pdf")
    assert faults == [
        "XMP lacks pdfxid:GTS_PDFXVersion",
        "XMP claims no PDF/X-4",
        "0 output intents for PDF/X",
    ]


def test_equal_pdfs_are_equal_files_at_a_stated_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1728518400")
    for name in ("a.pdf", "b.pdf"):
        finish(picture(), tmp_path / name, FinishSettings())
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert b"D:20241010000000Z" in (tmp_path / "a.pdf").read_bytes()


def test_few_pixels_and_a_lost_bleed_are_reported(tmp_path: Path) -> None:
    size = make_sheet("A6", dpi=60, bleed="3mm").pixels
    rendered = picture(size.height, size.width, paper="A6", dpi=60, bleed="3mm")
    notes = finish(rendered, tmp_path / "p.tif", FinishSettings(paper="A5")).notes
    assert any(re.search(r"^4\d dpi on A5: under 150", note) for note in notes)
    assert "the poster was rendered with 3mm bleed, this print has 0 mm; add --bleed 3mm to keep it" in notes
    notes = finish(rendered, tmp_path / "p.tif", FinishSettings(paper="A6", bleed="3mm")).notes
    assert not any("bleed" in note for note in notes)
    assert finish(picture(), tmp_path / "q.tif", FinishSettings()).notes == []


def test_a_page_of_exactly_the_longest_side_is_not_reduced() -> None:
    assert page_boxes(make_sheet("200x20in", dpi=10), crop_marks=False).reduction == 1
    assert page_boxes(make_sheet("200.1x20in", dpi=10), crop_marks=False).reduction == 10


def test_a_page_longer_than_pdf_allows_is_a_tenth_of_its_size() -> None:
    boxes = page_boxes(make_sheet("6x2m", dpi=10), crop_marks=False)
    assert boxes.reduction == 10
    assert boxes.media[2] == pytest.approx(600 * 72 / 25.4)


@pytest.mark.parametrize(
    ("paper", "marks", "points"), [("6x2m", False, 1700.79), ("5.07x1.69m", True, 1443.97)]
)
def test_a_reduced_page_is_reported(tmp_path: Path, paper: str, marks: bool, points: float) -> None:
    """The second is too long only with the margin of its marks."""
    settings = FinishSettings(paper=paper, crop_marks=marks)
    finished = finish(picture(200, 600), tmp_path / "p.pdf", settings)
    assert any("written at 1:10" in note for note in finished.notes)
    told = tool("pdfinfo", "-box", str(tmp_path / "p.pdf"))
    assert f"MediaBox:            0.00     0.00  {points:.2f}" in told


@pytest.mark.parametrize("name", ALL)
def test_every_file_says_a_model_made_it_and_how(tmp_path: Path, name: str) -> None:
    finished = finish(picture(paper="4x6in"), tmp_path / name, FinishSettings(paper="6x4in"))
    recipe = read_recipe(tmp_path / name)
    assert recipe["request"]["prompt"] == PROMPT
    assert recipe["file"]["pixels_sha256"] == finished.record["pixels_sha256"]
    told = json.loads(tool("exiftool", "-j", "-G1", "-XMP:all", str(tmp_path / name)))[0]
    assert told["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    assert told["XMP-dc:Description"] == PROMPT.replace("\x07", " ")


@pytest.mark.parametrize("name", ALL)
def test_a_picture_of_unknown_making_claims_nothing(tmp_path: Path, name: str) -> None:
    finish(Picture(bands_of_array(gradient(40, 60))), tmp_path / name, FinishSettings())
    assert SOURCE_TYPE.encode() not in (tmp_path / name).read_bytes()
    with pytest.raises(BadManifest, match="carries no recipe"):
        read_recipe(tmp_path / name)


def test_a_very_long_prompt_fits_into_a_jpeg(tmp_path: Path) -> None:
    prompt = "海" * 8000 + "𝄞" * 4000
    finish(picture(prompt=prompt), tmp_path / "p.jpg", FinishSettings())
    assert read_recipe(tmp_path / "p.jpg")["request"]["prompt"] == prompt
    assert verify(tmp_path / "p.jpg").matches
    assert "sun" not in tool("exiftool", "-j", "-XMP:all", str(tmp_path / "p.jpg"))
    with Image.open(tmp_path / "p.jpg") as image:
        assert image.size == (300, 200)


@pytest.mark.parametrize("name", ["p.tif", "p.png", "p.jpg"])
def test_the_same_picture_gives_the_same_file(tmp_path: Path, name: str) -> None:
    for folder in ("a", "b"):
        finish(picture(bits=16), tmp_path / folder / name, FinishSettings(bits=8))
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, {}) for name in ALL]
    + [("q.tif", {"bits": 16}), ("q.png", {"bits": 16}), ("q.pdf", {"lossless": True})],
)
def test_verify_knows_a_file_from_one_with_another_pixel(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    finish(picture(), tmp_path / name, FinishSettings(**settings))
    assert verify(tmp_path / name).matches
    changed = gradient(200, 300)
    changed[100, 100] ^= 1 if name != "p.jpg" else 64
    original = read_recipe(tmp_path / name)
    finish(Picture(bands_of_array(changed)), tmp_path / f"other-{name}", FinishSettings(**settings))
    (tmp_path / "recipe.json").write_text(json.dumps(original))
    assert not verify(tmp_path / f"other-{name}", recipe_file=tmp_path / "recipe.json").matches


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    finish(picture(900, 700), tmp_path / name, FinishSettings())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(BadManifest, match=r"cut off|too early|truncated|damaged|no recipe|read to its end"):
        verify(tmp_path / name)


def test_a_changed_byte_in_the_pixels_is_seen(tmp_path: Path) -> None:
    finish(picture(900, 700), tmp_path / "p.jpg", FinishSettings())
    content = bytearray((tmp_path / "p.jpg").read_bytes())
    content[-5000] ^= 2
    (tmp_path / "p.jpg").write_bytes(bytes(content))
    assert not verify(tmp_path / "p.jpg").matches


def test_without_scaling_a_picture_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"has 591x886 px, the picture 300x450 \(76 dpi\)"):
        finish(picture(450, 300), tmp_path / "p.tif", FinishSettings(paper="10x15cm", dpi=150))
    assert names(tmp_path) == []


def test_scaling_is_written_into_the_recipe(tmp_path: Path) -> None:
    settings = FinishSettings(paper="10x15cm", dpi=150, scale="lanczos")
    finished = finish(picture(450, 300), tmp_path / "p.tif", settings)
    record = read_recipe(tmp_path / "p.tif")["file"]
    assert (record["generated"], record["scaled"]["to"], record["scaled"]["by"]) == (
        "300x450",
        "591x886",
        "lanczos",
    )
    assert any("generated at 300x450" in note for note in finished.notes)
    assert tifffile.imread(tmp_path / "p.tif").shape == (886, 591, 3)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((300, 450), {"paper": "10x15cm"}, r"turn the sheet \(landscape\)"),
        ((450, 400), {"paper": "10x15cm"}, "25% of a side would be cut away; allow it with cut"),
        ((40, 60), {"paper": "3x2m"}, "less than 1 dpi"),
    ],
)
def test_a_picture_of_another_shape_is_refused(
    tmp_path: Path, shape: tuple[int, int], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadValue, match=message):
        finish(picture(*shape), tmp_path / "p.tif", FinishSettings(**settings))
    assert names(tmp_path) == []


def test_cut_takes_the_middle(tmp_path: Path) -> None:
    finish(picture(450, 400), tmp_path / "p.tif", FinishSettings(paper="10x15cm", cut=True))
    assert (tifffile.imread(tmp_path / "p.tif") == gradient(450, 400)[:, 50:350]).all()


def test_the_sheet_of_the_request_is_taken(tmp_path: Path) -> None:
    size = make_sheet("A6", dpi=60, bleed="3mm").pixels
    asked = {"paper": "A6", "dpi": 60, "bleed": "3mm"}
    finished = finish(picture(size.height, size.width, **asked), tmp_path / "p.pdf", FinishSettings())
    assert (finished.record["paper"], finished.record["bleed_mm"], finished.record["dpi"]) == ("A6", 3.0, 60)


@pytest.mark.parametrize("name", ["p.tif", "p.jpg", "p.pdf"])
def test_cmyk_is_written_with_the_named_profile(tmp_path: Path, name: str) -> None:
    icc = cmyk_profile(tmp_path / "shop.icc")
    finished = finish(picture(), tmp_path / name, FinishSettings(icc=str(icc)))
    assert finished.record["colour"] == "CMYK"
    assert 0 <= finished.record["colour_report"]["out_of_gamut"] <= 1
    assert 100 < finished.record["colour_report"]["ink_percent_highest"] <= 400
    gamut, ink = finished.notes[-2:]
    assert re.fullmatch(r"out of gamut: \d+\.\d % of the pixels lose colour on this device", gamut)
    assert re.fullmatch(r"total ink: \d+ % at most, 99\.9 % of the pixels within \d+ %", ink)
    assert verify(tmp_path / name).matches
    if name != "p.pdf":
        with Image.open(tmp_path / name) as image:
            assert (image.mode, image.info["icc_profile"]) == ("CMYK", icc.read_bytes())


def test_cmyk_equals_pillows_own_lcms(tmp_path: Path) -> None:
    from PIL import ImageCms

    icc = cmyk_profile(tmp_path / "shop.icc")
    pixels = gradient(64, 96)
    bands, _ = converted(
        bands_of_array(pixels), (srgb(), profile_in(icc)), intent="relative", black_point=True
    )
    ours = np.concatenate(list(bands.read())) / 257
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), str(icc), "RGB", "CMYK", 1, ImageCms.Flags.BLACKPOINTCOMPENSATION
    )
    theirs = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform))
    assert abs(ours - theirs).max() < 1.1


def test_colours_no_ink_can_show_are_counted(tmp_path: Path) -> None:
    icc = cmyk_profile(tmp_path / "shop.icc")
    shares = []
    for colour in ((128, 128, 128), (0, 255, 0)):
        flat = np.broadcast_to(np.array(colour, np.uint8), (32, 32, 3)).copy()
        settings = FinishSettings(icc=str(icc))
        finished = finish(Picture(bands_of_array(flat)), tmp_path / "p.tif", settings)
        shares.append(finished.record["colour_report"]["out_of_gamut"])
    assert shares == [0.0, 1.0]


def test_a_cmyk_pdf_shows_the_colours_of_the_picture(tmp_path: Path) -> None:
    icc = cmyk_profile(tmp_path / "shop.icc")
    flat = np.full((100, 100, 3), (180, 120, 90), np.uint8)
    for lossless in (False, True):
        path = tmp_path / f"p{lossless}.pdf"
        settings = FinishSettings(icc=str(icc), dpi=72, lossless=lossless)
        finish(Picture(bands_of_array(flat)), path, settings)
        page = rendered_pdf(path, 72)[50, 50].astype(int)
        assert abs(page - (180, 120, 90)).max() < 40


def _text_file(path: Path) -> str:
    path.write_text("not a profile " * 20)
    return str(path)


def _torn_profile(path: Path) -> str:
    path.write_bytes(srgb().data[:-20])
    return str(path)


def _gray_profile(path: Path) -> str:
    data = bytearray(srgb().data)
    data[16:20] = b"GRAY"
    path.write_bytes(bytes(data))
    return str(path)


def _device_link(path: Path) -> str:
    data = bytearray(srgb().data)
    data[12:16] = b"link"
    path.write_bytes(bytes(data))
    return str(path)


def _profile_without_tables(path: Path) -> str:
    data = bytearray(srgb().data)
    data[16:20] = b"CMYK"
    path.write_bytes(bytes(data))
    return str(path)


@pytest.mark.parametrize("field", ["icc", "output_intent"])
@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (str, MissingInput, "ICC profile .* does not exist"),
        (_text_file, BadValue, "is not an ICC profile"),
        (_torn_profile, BadValue, "is a truncated ICC profile"),
        (_gray_profile, BadValue, "is a profile for GRAY colours; prints are RGB or CMYK"),
        (_device_link, BadValue, "is a device link; prints need the profile of a printer"),
        (_profile_without_tables, BadValue, "cannot be converted to: it lacks the tables for CMYK colours"),
    ],
)
def test_a_wrong_profile_is_refused_before_any_work(
    tmp_path: Path, make: Callable[[Path], str], kind: type[Exception], message: str, field: str
) -> None:
    settings = FinishSettings(**{field: make(tmp_path / "shop.icc")})  # type: ignore[arg-type]
    with pytest.raises(kind, match=message):
        check(tmp_path / "p.pdf", settings)


def test_a_picture_whose_own_profile_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """Its class says device link, so lcms finds no way from it; nothing is left of the print."""
    broken = Profile("broken", "RGB", "link", Path(_device_link(tmp_path / "broken.icc")).read_bytes())
    torn = dataclasses.replace(picture(), profile=broken)
    icc = cmyk_profile(tmp_path / "shop.icc")
    with pytest.raises(BadValue, match="cannot convert from profile 'broken'"):
        finish(torn, tmp_path / "p.tif", FinishSettings(icc=str(icc)))
    assert names(tmp_path) == ["broken.icc", "shop.icc"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("p.jpg", {"bits": 16}, "JPEG cannot hold 16 bits a channel; use tif or png"),
        ("p.pdf", {"bits": 16}, "a PDF needs lossless for them"),
        ("p.tif", {"crop_marks": True}, "crop marks lie outside the picture"),
        ("p.tif", {"output_intent": "x.icc"}, "an output intent belongs to a PDF"),
        ("p.webp", {}, "posters are written as tif, tiff, png, jpg, jpeg, pdf"),
        ("p.tif", {"scale": "bicubic"}, "is neither realesrgan-x4plus.* nor a .safetensors file"),
        ("p.tif", {"scale": "model.pth"}, "pickled models are not read"),
    ],
)
def test_what_a_kind_of_file_cannot_be_is_refused(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadValue, match=message):
        finish(picture(), tmp_path / name, FinishSettings(**settings))
    assert names(tmp_path) == []


def test_png_does_not_take_cmyk(tmp_path: Path) -> None:
    icc = cmyk_profile(tmp_path / "shop.icc")
    with pytest.raises(BadValue, match="PNG cannot hold CMYK"):
        finish(picture(), tmp_path / "p.png", FinishSettings(icc=str(icc)))
    assert names(tmp_path) == ["shop.icc"]


@pytest.mark.parametrize("name", ["p.jpg", "p.pdf"])
def test_a_side_that_jpeg_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    def never() -> Any:
        raise AssertionError("the pixels were read")

    long = Bands(ImageSize(16, jpeg.LONGEST_SIDE + 1), 3, 8, never)
    with pytest.raises(BadValue, match="a JPEG's side has at most 65500"):
        finish(Picture(long), tmp_path / name, FinishSettings())
    assert names(tmp_path) == []


def test_a_source_that_is_torn_leaves_no_print(tmp_path: Path) -> None:
    finish(picture(1200, 700), tmp_path / "p.tif", FinishSettings())
    content = (tmp_path / "p.tif").read_bytes()
    (tmp_path / "p.tif").write_bytes(content[: len(content) // 2])
    for name in ("q.tif", "q.png", "q.jpg", "q.pdf"):
        with pytest.raises(BadManifest, match=r"cannot be read to its end|not a readable TIFF"):
            finish(open_picture(tmp_path / "p.tif"), tmp_path / name, FinishSettings())
    assert names(tmp_path) == ["p.tif"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"II*\0garbage", "not a readable TIFF"),
        (b"hello, world", "not a readable picture"),
        (b"%PDF-1.6 and so on", "is a PDF, a finished print; give the tif or png"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.tif").write_bytes(content)
    with pytest.raises(BadManifest, match=message):
        open_picture(tmp_path / "p.tif")


def test_a_cmyk_source_is_not_finished_again(tmp_path: Path) -> None:
    icc = cmyk_profile(tmp_path / "shop.icc")
    finish(picture(), tmp_path / "p.tif", FinishSettings(icc=str(icc)))
    with pytest.raises(BadValue, match="is CMYK already"):
        finish(open_picture(tmp_path / "p.tif"), tmp_path / "q.tif", FinishSettings())


def test_large_tiffs_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "BIG", 1000)
    finish(picture(), tmp_path / "p.tif", FinishSettings())
    assert (tmp_path / "p.tif").read_bytes()[:4] == b"II+\0"
    assert verify(tmp_path / "p.tif").matches
    assert (tifffile.imread(tmp_path / "p.tif") == gradient(200, 300)).all()


def test_a_picture_of_another_program_is_finished(tmp_path: Path) -> None:
    Image.fromarray(gradient(200, 300)).save(tmp_path / "their.png")
    finish(open_picture(tmp_path / "their.png"), tmp_path / "p.tif", FinishSettings())
    assert (tifffile.imread(tmp_path / "p.tif") == gradient(200, 300)).all()


def test_a_finished_file_can_be_finished_again(tmp_path: Path) -> None:
    poster = png_poster(tmp_path / "p.png")
    finish(open_picture(poster), tmp_path / "q.tif", FinishSettings(bits=16))
    finish(open_picture(tmp_path / "q.tif"), tmp_path / "r.png", FinishSettings(bits=8))
    record = read_recipe(tmp_path / "r.png")["file"]
    assert record["made_from"]["kind"] == "tiff"
    again = np.concatenate(list(open_picture(tmp_path / "r.png").bands.read()))
    assert (again == gradient(200, 300)).all()
