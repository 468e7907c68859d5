"""What ``imax doctor --measure`` writes is a description that ``imax plan`` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from planner.counting import Counter

from imax_dist.calibrate import measure
from imax_dist.cli.main import main
from imax_dist.planner.transformer import TRAFFIC
from imax_dist.shapes import RopeTable


@pytest.mark.slow
def test_this_machine_is_measured_and_planned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.02)
    monkeypatch.setattr(measure, "WIDTHS", {"cpu": (64, 128), "cuda": (256,)})
    file = tmp_path / "here.yaml"
    threads = torch.get_num_threads()
    assert main(["doctor", "--measure", str(file)]) == 0
    torch.set_num_threads(threads)
    assert "GFLOP/s" in file.read_text()
    assert "GB/s" in file.read_text()
    capsys.readouterr()
    assert (
        main(["plan", "--gpus", "2xhere", "--hardware", str(file), "--size", "256x256", "--count", "2"]) == 0
    )
    out = capsys.readouterr().out
    assert "predicted from measured rates" in out


def test_a_file_that_is_no_yaml_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--measure", "here.txt"]) == 64
    assert "must end in .yaml" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_chain_moves_what_it_is_said_to_and_a_network_about_as_much(dtype: torch.dtype) -> None:
    """So that the rate it gives is that of a network's own mixture of kernels."""
    x, wide = torch.rand(1, 4096, 256).to(dtype), torch.rand(1, 4096, 1024).to(dtype)
    angles = torch.rand(4096, measure.CHAIN_HEAD)
    counter = Counter()
    with counter, torch.no_grad():
        measure.chain(x, wide, RopeTable(angles.cos(), angles.sin()))
    passes = counter.moved / (x.numel() * x.element_size())
    assert passes == pytest.approx(measure.CHAIN_PASSES[dtype.itemsize < 4], rel=0.01)
    assert passes * dtype.itemsize == pytest.approx(TRAFFIC[str(dtype).removeprefix("torch.")], rel=0.07)
