"""What a print shop asks for: profiles by name, mirrored bleed, panels, order numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pdf_x4 import x4_faults
from pictures import cmyk_profile, gradient, names, picture, png_poster, profile_in
from PIL import Image

from imax_dist.cli.main import main
from imax_dist.errors import BadValue, ImaxError
from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import bands_of_array, mirrored
from imax_dist.output.image.finish import finish, finish_panels
from imax_dist.output.image.paper import make_sheet
from imax_dist.output.image.provenance import read_recipe
from imax_dist.output.image.settings import FinishSettings, read_outputs
from imax_dist.output.image.system_profiles import installed_profiles, profile_named
from imax_dist.output.image.verify import verify
from imax_dist.output.image.xmp import find_packet


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with one CMYK profile, something that is none, and no others."""
    folder = tmp_path / "data" / "color" / "icc" / "press"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "none"))
    (folder / "rubbish.icc").write_bytes(b"no profile" * 100)
    return cmyk_profile(folder / "Shop_Coated-v2.icc")


def test_a_profile_is_found_by_the_name_of_its_file_or_its_own(installed: Path) -> None:
    own = profile_in(installed)
    assert [path for path, _ in installed_profiles()] == [installed]
    for name in ("shop coated v2", "Shop_Coated-v2", own.name, own.name.upper(), str(installed)):
        assert profile_named(name).sha256 == own.sha256


def test_a_name_that_none_or_two_have_says_which_there_are(installed: Path) -> None:
    with pytest.raises(BadValue, match=r"neither a file nor installed here; near it: .*imax list profiles"):
        profile_named("FOGRA 99")
    content = bytearray(installed.read_bytes())
    content[24:26] = b"\x07\xd0"  # another date: another profile of the same name
    (installed.parent / "shop coated v2.icm").write_bytes(content)
    with pytest.raises(BadValue, match=r"any of .*Shop_Coated-v2\.icc.*; name the file"):
        profile_named("Shop Coated v2")


def test_the_command_takes_a_name_and_lists_what_is_installed(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poster = png_poster(tmp_path / "sea.png")
    words = ["finish", str(poster), "--icc", "Shop Coated v2", "--paper", "60x40mm", "--cut"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["profile"]["sha256"] == profile_in(installed).sha256
    assert x4_faults(tmp_path / "sea-print.pdf") == []
    assert main(["list", "profiles"]) == 0
    assert f"CMYK, {installed}" in capsys.readouterr().out


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (5, 140, 7, 9), (0, 3, 12, 150), (4, 0, 4, 0)])
def test_edges_are_mirrored_as_numpy_does_it(margins: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = margins
    pixels = gradient(300, 60)
    size = ImageSize(left + 60 + right, top + 300 + bottom)
    grown = np.concatenate(list(mirrored(bands_of_array(pixels), left=left, top=top, size=size).read()))
    assert grown.tolist() == np.pad(pixels, ((top, bottom), (left, right), (0, 0)), "symmetric").tolist()


def test_a_finished_picture_gets_a_bleed_of_its_own_edges(tmp_path: Path) -> None:
    trim, whole = (make_sheet("8x6cm", dpi=100, bleed=bleed).pixels for bleed in (None, "3mm"))
    pixels = gradient(trim.height, trim.width)
    settings = FinishSettings(paper="8x6cm", dpi=100, bleed="3mm", mirror_bleed=True)
    made = finish(picture(trim.height, trim.width), tmp_path / "p.png", settings)
    assert (made.record["bleed_mm"], made.record["mirrored_bleed"]) == (3.0, True)
    printed = np.asarray(Image.open(tmp_path / "p.png"))
    assert printed.shape == (whole.height, whole.width, 3)
    left, top = (whole.width - trim.width) // 2, (whole.height - trim.height) // 2
    assert printed[top : top + trim.height, left : left + trim.width].tolist() == pixels.tolist()
    assert printed[top - 1, left + 9].tolist() == pixels[0, 9].tolist()
    assert printed[top + 9, left - 3].tolist() == pixels[9, 2].tolist()
    assert verify(tmp_path / "p.png").matches


@pytest.mark.parametrize(
    ("settings", "request_fields", "said"),
    [
        ({"mirror_bleed": True}, {}, "needs its width, for example --bleed 3mm"),
        ({"paper": "3x3cm", "bleed": "90mm", "mirror_bleed": True, "cut": True}, {}, "too wide to"),
        ({"panels": "1x1"}, {}, "panels '1x1' is not COLUMNSxROWS"),
        ({"panels": "40x40"}, {}, "with 2 to 100 panels"),
        ({"panels": "9x1", "paper": "10x15cm", "cut": True}, {}, "take fewer, or less overlap"),
        ({"panels": "2x1", "overlap": "5"}, {}, "is not a number with a unit"),
        ({"order": "a\nb"}, {}, "must be a line of up to 100 characters"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, settings: dict[str, Any], request_fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ImaxError, match=said.replace("(", r"\(")):
        finish_panels(
            picture(**request_fields), tmp_path / "p.png", FinishSettings(**{"panels": "2x1", **settings})
        )
    assert names(tmp_path) == []


def test_panels_overlap_and_join_to_the_whole(tmp_path: Path) -> None:
    sheet = make_sheet("30x20cm", dpi=50, bleed="4mm")
    size = sheet.pixels
    settings = FinishSettings(paper="30x20cm", dpi=50, bleed="4mm", panels="3x2", overlap="15mm")
    made = finish_panels(picture(size.height, size.width), tmp_path / "p.png", settings)
    expected = [f"p-r{row}c{column}.png" for row in (1, 2) for column in (1, 2, 3)]
    assert [path.name for path in made] == expected == names(tmp_path)
    whole, seen = gradient(size.height, size.width), np.zeros((size.height, size.width), int)
    for path, finished in made.items():
        panel = finished.record["panel"]
        pixels = np.asarray(Image.open(path))
        here = (slice(panel["top"], panel["top"] + len(pixels)),
                slice(panel["left"], panel["left"] + pixels.shape[1]))  # fmt: skip
        assert pixels.tolist() == whole[here].tolist()
        seen[here] += 1
        assert finished.record["trim_mm"] == [110.0, 107.5]
        assert read_recipe(path)["file"]["panel"] == panel
        assert verify(path).matches
    assert seen.min() == 1
    shared = (15 + 2 * 4) / 25.4 * 50
    assert (seen > 1)[5].sum() == pytest.approx(2 * shared, abs=2)


def test_panels_are_pages_of_their_own_and_none_is_left_of_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FinishSettings(
        paper="100x66mm",
        cut=True,
        panels="2x1",
        crop_marks=True,
        icc=str(cmyk_profile(tmp_path / "shop.icc")),
    )
    for path in finish_panels(picture(), tmp_path / "p.pdf", settings):
        assert x4_faults(path) == []
        path.unlink()
    from imax_dist.output.image import finish as module

    write, calls = module._write, []

    def fails_at_last(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise OSError("disk full")
        return write(*given)

    monkeypatch.setattr(module, "_write", fails_at_last)
    with pytest.raises(OSError, match="disk full"):
        finish_panels(picture(), tmp_path / "p.pdf", settings)
    assert names(tmp_path) == ["shop.icc"]
    with pytest.raises(BadValue, match="panels are cut from the finished poster: imax finish --panels"):
        read_outputs({"pdf": {"panels": "2x1"}}, {})


def test_the_order_is_in_the_names_and_in_every_kind_of_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poster = png_poster(tmp_path / "sea.png")
    for kind in ("tif", "png", "jpg", "pdf"):
        out = tmp_path / f"{{order}}_{{paper}}_{{name}}.{kind}"
        words = ["--order", "../4711/b & <c>", "--paper", "60x40 mm", "--cut", "--out", str(out), "--json"]
        assert main(["finish", str(poster), *words]) == 0
        record = json.loads(capsys.readouterr().out)
        path = tmp_path / f"4711-b-c_60x40-mm_sea.{kind}"
        assert (record["out"], record["order"]) == (str(path), "../4711/b & <c>")
        xmp = find_packet(path)
        assert xmp is not None
        tag = b"photoshop:TransmissionReference>"
        assert b"<" + tag + b"../4711/b &amp; &lt;c&gt;</" + tag in xmp
        assert verify(path).matches
    assert main(["finish", str(poster), "--out", str(tmp_path / "{customer}.pdf")]) == 64
    assert "{customer} is not a placeholder; use {name}" in capsys.readouterr().err


def test_a_second_interpreter_shows_the_page_without_a_warning(tmp_path: Path) -> None:
    """Ghostscript, which stops at errors that others pass over; no program here checks PDF/X-4 itself."""
    if shutil.which("gs") is None:
        pytest.skip("gs is not installed")
    icc = str(cmyk_profile(tmp_path / "shop.icc"))
    settings = FinishSettings(paper="100x66mm", cut=True, crop_marks=True, icc=icc, order="4711")
    finish(picture(), tmp_path / "p.pdf", settings)
    strict = ["-dSAFER", "-dBATCH", "-dNOPAUSE", "-dPDFSTOPONERROR", "-dPDFSTOPONWARNING"]
    page = tmp_path / "page.png"
    command = [
        "gs",
        "-q",
        *strict,
        "-sDEVICE=png16m",
        "-r50",
        f"-sOutputFile={page}",
        str(tmp_path / "p.pdf"),
    ]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert shown.stdout + shown.stderr == ""
    pixels = np.asarray(Image.open(page).convert("RGB")).astype(int)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[30:-30, 30:-30].std() > 20
