from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imax_dist.cli.main import main
from imax_dist.cli.study_train import parse_size
from imax_dist.errors import BadValue
from imax_dist.output.image.sheet import tile, write_sheet
from imax_dist.study.scenes.caption import vocabulary


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


def test_a_sheet_keeps_its_pictures_and_refuses_unequal_ones(tmp_path: Path) -> None:
    pictures = [np.full((4, 6, 3), k, np.uint8) for k in range(3)]
    sheet = tile(pictures, columns=2, gap=1)
    assert sheet.shape == (9, 13, 3)
    assert (sheet[5:, :6] == 2).all()
    assert (sheet[5:, 7:] == 255).all()
    write_sheet(tmp_path / "s.png", pictures)
    with pytest.raises(BadValue, match="pictures of 2 sizes"):
        tile([*pictures, np.zeros((4, 4, 3), np.uint8)], columns=2)
