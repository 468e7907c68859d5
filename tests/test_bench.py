"""The benchmark of a GPU runs from end to end on a CPU, with a small shape."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.bench.gpu", *options]
    return subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_every_section_of_the_gpu_benchmark_runs_on_a_small_shape() -> None:
    done = run("--tiny")
    assert done.returncode == 0, done.stderr
    assert "not a measurement" in done.stdout.splitlines()[0]
    sections = done.stdout.split("### ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "Roofline and kernels", "One step", "Against a bare diffusers transformer", "Kernels of a step",
        "A head of 512 channels", "Engines on one rank", "Two ranks on one device",
        "Steps of larger pictures", "VAE decode", "Whole job",
    ]  # fmt: skip
    assert "failed" not in done.stdout
    assert all(len(section.splitlines()) > 3 for section in sections)
    differences = [line.split("|")[2] for line in sections[6].splitlines() if line.startswith("| ulysses")]
    assert len(differences) == 2
    assert max(map(float, differences)) < 1e-4


def test_without_a_gpu_it_says_so() -> None:
    done = run()
    assert done.returncode == 2
    assert "there is no GPU here; --tiny runs every section" in done.stderr
