"""``imax plan`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imax_dist.cli.main import main

FLUX = ["--model", "black-forest-labs/FLUX.1-dev"]


def test_a_plan_is_printed_without_a_model_on_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpus", "8xH100", "--size", "2048x2048", "--count", "8", *FLUX]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    assert (
        "8 posters of 2048x2048 px with black-forest-labs/FLUX.1-dev (bfloat16) on 8 x H100, preset imax"
        in out
    )
    assert "embedded" not in out
    assert "8 gangs x 1 rank" in out


def test_paper_is_planned_at_its_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--paper", "A4", "--dpi", "100", "--bleed", "3mm", "--json"]
    assert main(["plan", "--gpus", "1xH200", *options, *FLUX]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"]["gangs"] == 1
    assert found["chosen"]["poster"]["total"] > 0


def test_a_manifest_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(
        '{"prompt": "a", "size": "256x256", "count": 3}\n{"prompt": "b", "size": "512x256"}\n'
    )
    assert main(["plan", str(manifest), "--gpus", "2xcpu"]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    assert "4 posters of 256x256, 512x256 px with embedded (float32) on 2 x cpu, preset imax; " in out
    assert "embedded is the small model for trials, --model names another" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--gpus", "1xL40S", "--size", "16384x16384", *FLUX], 64, "no plan on 1 x L40S fits"),
        (
            ["a red sun", "--gpus", "1xH100", "--size", "512x512"],
            64,
            "'a red sun' is not a manifest file",
        ),
        (["m.txt", "--gpus", "1xH100", "--size", "512x512"], 64, "counts itself; omit these options"),
        (["--gpus", "9xH100"], 64, "a node holds 8 H100; write 2x8xH100"),
        (["--gpus", "8xH100", "--count", "0"], 64, "--count 0 is outside"),
        (["--gpus", "8xH100", "--ranks", "0"], 64, "--ranks 0 must be at least 1"),
        (["--gpus", "8xH100", "--hardware", "none.yaml"], 64, "hardware file none.yaml does not exist"),
        (["--gpus", "2xcpu", "--dtype", "bfloat8"], 78, "dtype: 'bfloat8' is not known"),
        (["--gpus", "8xH100", "--dtype", "float64", *FLUX], 64, "H100 has no rates for float64"),
        (["--gpus", "8xH100", "--model", "nobody/nothing"], 66, "is not on this disk"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *options]) == code
    assert message in capsys.readouterr().err


def test_an_old_name_of_a_preset_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpus", "1xH100", *FLUX, "--preset", "imax_late"]) == 0
    now = "imax_late is imax now; `--preset imax --set start.sigma=0.6` is close to what it was\n"
    assert capsys.readouterr().err == now
    assert main(["plan", "--gpus", "1xH100", *FLUX, "--preset", "imax"]) == 0
    assert capsys.readouterr().err == ""


def test_a_hardware_file_without_units_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from planner.works import MEASURED

    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({**MEASURED, "link": {"kind": "x", "bandwidth": 450, "latency": "1 us"}}))
    assert main(["plan", "--gpus", "2xmine", "--hardware", str(file)]) == 78
    assert "link.bandwidth: 450 has no unit" in capsys.readouterr().err
