from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imax_dist.cli.main import main
from imax_dist.cli.study_options import model_size, parse_size
from imax_dist.errors import BadValue
from imax_dist.models.find import find_model
from imax_dist.output.image.sheet import tile, write_sheet
from imax_dist.study.scenes.caption import vocabulary

EMBEDDED = find_model("embedded")[1]


def imax_study(*words: str) -> int:
    return main(["study", *words])


def test_scenes_writes_a_sheet_and_prints_its_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imax_study("scenes", "--out", str(tmp_path / "s.png"), "--n", "5", "--size", "48x32") == 0
    assert Image.open(tmp_path / "s.png").size == (4 * 52 - 4, 2 * 36 - 4)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    assert set(" ".join(said).split()) <= set(vocabulary())


@pytest.mark.slow
def test_a_model_is_trained_saved_and_measured_by_commands_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path)
    run, small, native = ["--steps", "1", "--batch", "2"], ["--size", "64x64"], ["--native", "64x64"]
    assert imax_study("train-vae", "--out", root, *run, "--pictures", "8") == 0
    vae = ["--vae", f"{root}/vae.safetensors"]
    assert imax_study("encode-scenes", *vae, "--out", f"{root}/data", "--n", "3", *small) == 0
    run += [*native, "--data", f"{root}/data", "--out", root]
    assert imax_study("train-flow", *run, "--single-size") == 0
    flow = ["--flow", f"{root}/flow.safetensors"]
    assert imax_study("distil", *flow, *run) == 0
    student = ["--flow", f"{root}/distil.safetensors"]
    assert imax_study("save-pipeline", *vae, *student, *native, "--out", f"{root}/model") == 0
    capsys.readouterr()
    few = ["--n", "2", "--steps", "1", *small]
    assert imax_study("measure", "--model", f"{root}/model", "--out", f"{root}/m", *few) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "m" / "results.json").read_text())
    assert told["facts"]["drawn"]["mean"]["n"] == 2
    assert (tmp_path / "m" / "sheet.png").exists()

    weights = [f"{root}/flow.safetensors", f"{root}/distil.safetensors"]
    tokenizers = ["--tokenizers", f"{root}/flow.safetensors"]
    assert imax_study("loss", *weights, *vae, *tokenizers, "--n", "2", *small, "--out", f"{root}/l") == 0
    row = json.loads((tmp_path / "l" / "loss.json").read_text())["losses"]["64x64"]
    assert [loss["n"] for loss in row] == [2, 2]
    assert f"{row[1]['mean']:.4f}" in capsys.readouterr().out
    assert Image.open(tmp_path / "l" / "loss.png").width > 200


def test_losses_at_fewer_places_than_weights_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert imax_study("loss", "embedded", "embedded", "--at", "3", "--out", "l") == 64
    assert "--at has 1 numbers for 2 weights; give one for each" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["512", "512x", "axb", "5.5x4"])
def test_a_size_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="is not WIDTHxHEIGHT"):
        parse_size(text)


def test_a_size_that_is_not_in_whole_tokens_is_refused_with_the_nearest() -> None:
    assert model_size("512x256") == (256, 512)
    with pytest.raises(BadValue, match=r"size 60x100: both sides must be multiples of 16 px.* is 64x96"):
        model_size("60x100")
    with pytest.raises(BadValue, match=r"nearest such size is 16x16"):
        model_size("0x0")


TRAIN_FLOW = ["train-flow", "--data", "nothere"]
MEASURE = ["measure", "--model", "nothere"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([*TRAIN_FLOW, "--steps", "0"], 64, "--steps 0 must be at least 1"),
        ([*TRAIN_FLOW, "--minutes", "0"], 64, "--minutes 0 must be above 0"),
        ([*TRAIN_FLOW, "--minutes", "nan"], 64, "--minutes nan must be above 0"),
        ([*TRAIN_FLOW, "--batch", "0"], 64, "--batch 0 must be at least 1"),
        ([*TRAIN_FLOW, "--native", "60x60"], 64, "multiples of 16"),
        ([*TRAIN_FLOW, "--share", "60x60=1"], 64, "multiples of 16"),
        ([*TRAIN_FLOW, "--threads", "0"], 64, "--threads 0 must be at least 1"),
        (["train-vae", "--pictures", "0"], 64, "--pictures 0 must be at least 1"),
        (
            ["distil-steps", "--flow", "f", "--data", "d", "--student-steps", "0"],
            64,
            "--student-steps 0",
        ),
        (["encode-scenes", "--vae", "v", "--n", "0"], 64, "--n 0 must be at least 1"),
        (["encode-scenes", "--vae", "v", "--size", "60x60"], 64, "multiples of 16"),
        (["encode-scenes", "--vae", "v", "--first", "999999"], 64, "seeds 0 to 999999, since no run may see"),
        (["encode-scenes", "--vae", "v", "--first", "-1"], 64, "seeds 0 to 999999, since no run may see"),
        (
            ["encode-scenes", "--vae", "none.safetensors"],
            66,
            "none.safetensors does not exist; name a",
        ),
        (["save-pipeline", "--vae", "v", "--flow", "f", "--native", "60x60"], 64, "multiples of 16"),
        ([*MEASURE, "--size", "60x60"], 64, "multiples of 16"),
        ([*MEASURE, "--n", "0"], 64, "--n 0 must be at least 1"),
        ([*MEASURE, "--steps", "0"], 64, "--steps 0 must be at least 1"),
        (["loss", "embedded", "--size", "60x60"], 64, "multiples of 16"),
        (["loss", "embedded", "--n", "0"], 64, "--n 0 must be at least 1"),
        (["scenes", "--n", "0"], 64, "--n 0 must be at least 1"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert imax_study(*words, "--out", str(tmp_path / "out")) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.touch()
    assert imax_study(*TRAIN_FLOW, "--out", str(out)) == 73
    assert imax_study("encode-scenes", "--vae", "embedded", "--n", "1", "--out", str(out)) == 73
    assert imax_study("loss", "embedded", "--n", "1", "--out", str(out)) == 73
    assert capsys.readouterr().err.count("is a file, and a folder is needed there") == 3


BOTH = """
from imax_dist.cli.main import main
for words in {words}:
    assert main(["study", *words]) == 0
"""


def test_measuring_shows_no_bars_and_advice_of_the_libraries(tmp_path: Path) -> None:
    """In a process of its own, since libraries warn once."""
    few = ["--n", "1", "--size", "64x64", "--out", str(tmp_path)]
    words = [["measure", "--model", str(EMBEDDED), "--steps", "1", *few], ["loss", "embedded", *few]]
    command = [sys.executable, "-c", BOTH.format(words=words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout
    assert ran.stderr == ""


def test_a_sheet_keeps_its_pictures_and_refuses_unequal_ones(tmp_path: Path) -> None:
    pictures = [np.full((4, 6, 3), k, np.uint8) for k in range(3)]
    sheet = tile(pictures, columns=2, gap=1)
    assert sheet.shape == (9, 13, 3)
    assert (sheet[5:, :6] == 2).all()
    assert (sheet[5:, 7:] == 255).all()
    write_sheet(tmp_path / "s.png", pictures)
    with pytest.raises(BadValue, match="pictures of 2 sizes"):
        tile([*pictures, np.zeros((4, 4, 3), np.uint8)], columns=2)
