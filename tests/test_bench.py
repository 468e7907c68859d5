"""The benchmark of a GPU runs from end to end on a CPU, with a small shape."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from imax_dist.planner.hardware import load_hardware, read_hardware
from tests.bench import two_gpus, two_gpus_contexts
from tests.bench.hangs import SKIPPED
from tests.bench.two_gpus_contexts import Held
from tests.bench.two_gpus_ranks import hardware_file
from tests.bench.two_gpus_renders import TINY, table

pytestmark = pytest.mark.bench
ROOT = Path(__file__).parents[1]
SECTIONS = (
    "Parity", "Bandwidth by size", "Host cost of a call", "Overlap of a hop with attention", "Communicators",
    "Contexts on GPU 0", "Endings", "Renders", "Strong scaling and engines",
)  # fmt: skip
"""Of the first hour on several GPUs, but its hangs: a verdict takes six seconds."""


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
        "Odd lengths", "A head of 512 channels", "Engines on one rank", "Two ranks on one device",
        "Steps of larger pictures", "VAE decode", "Whole job", "Whole posters by kernel",
    ]  # fmt: skip
    assert "failed" not in done.stdout
    assert all(len(section.splitlines()) > 3 for section in sections)
    assert "| cpu | refused" not in sections[-1]
    differences = [line.split("|")[2] for line in sections[7].splitlines() if line.startswith("| ulysses")]
    assert len(differences) == 2
    assert max(map(float, differences)) < 1e-4


def test_without_a_gpu_it_says_so() -> None:
    done = run()
    assert done.returncode == 2
    assert "there is no GPU here; --tiny runs every section" in done.stderr


@pytest.fixture(scope="module")
def first_hour(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    """Its sections by name, on gloo, and the hardware file that it writes."""
    file = tmp_path_factory.mktemp("hour") / "measured.yaml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.bench.two_gpus", "--tiny", "--hardware", str(file)]
    command += ["--only", *SECTIONS]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=380
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    return {section.splitlines()[0]: section for section in done.stdout.split("### ")[1:]}, file


@pytest.mark.slow
@pytest.mark.machines
@pytest.mark.timeout(400)
def test_the_first_hour_on_two_gpus_runs_whole_on_gloo(first_hour: tuple[dict[str, str], Path]) -> None:
    sections, file = first_hour
    assert list(sections) == list(SECTIONS)
    rows = [line.split("|") for line in sections["Parity"].splitlines() if line.startswith("| u")]
    assert len(rows) == 6
    assert all(float(row[3]) < 1e-4 for row in rows)
    assert "| out of memory | " in sections["Endings"]
    assert "| 71 |" in sections["Endings"]
    assert load_hardware(str(file)).link.kind == "measured by tests.bench.two_gpus"


@pytest.mark.slow
@pytest.mark.machines
def test_its_whole_posters_are_those_of_one_rank(first_hour: tuple[dict[str, str], Path]) -> None:
    lines = first_hour[0]["Renders"].splitlines()[4:]
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [name for name, *_ in rows] == list(TINY)
    assert all(float(latents) < 1e-10 and float(picture) < 1e-6 for _, latents, picture in rows)


def test_a_rank_on_the_gpu_of_another_is_named() -> None:
    """By what nvidia-smi lists or by a context of its own; a container's nvidia-smi lists nobody."""
    gpus = ("GPU-a", "GPU-b")
    listed = two_gpus_contexts.read_listing("70, GPU-a, 900\n71, GPU-b, 950\n5, GPU-b, 12\n")
    right = [Held(70, 0, (0,), gpus, listed), Held(71, 1, (1,), gpus, listed)]
    assert list(two_gpus_contexts.table(right))[2:] == [
        "| rank 0 | 900 | - |  |",
        "| rank 1 | - | 950 |  |",
        "| 5, no rank | - | 12 | |",
    ]
    for seen in (listed | {(71, "GPU-a"): "412"}, {}):
        wrong = [held._replace(listed=seen) for held in (right[0], right[1]._replace(contexts=(0, 1)))]
        with pytest.raises(RuntimeError, match=r"memory on a GPU of another: rank 1 on GPU 0$"):
            list(two_gpus_contexts.table(wrong))


def test_a_poster_that_differs_is_named_and_fails_its_section() -> None:
    lines = table([{"right": (1e-14, 0.0), "wrong": (0.0, 0.0)}, {"right": (0.0, 0.0), "wrong": (1e-3, 0.0)}])
    with pytest.raises(RuntimeError, match=r"not the poster of one rank: wrong$"):
        list(lines)


def test_its_hangs_are_those_that_the_liveness_tests_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/liveness/test_hangs.py makes both for real, through the same ``seconds_until_seen``."""
    seen = {"stopped": (6.0, "silent: rank 1"), SKIPPED: (None, "nothing")}
    monkeypatch.setattr(two_gpus, "seconds_until_seen", lambda kind, *_, **__: seen[kind])
    rows = list(two_gpus.hangs(two_gpus.Setting(2, tiny=True)))[2:]
    assert rows == ["| stopped | 6.0 | silent: rank 1 |", f"| {SKIPPED} | not called a hang | nothing |"]


def test_the_hardware_file_holds_what_a_call_costs_the_host() -> None:
    written = hardware_file({1 << 20: 1e-3, 8 << 20: 5e-3}, latency=2e-5, call=3.5e-5, tiny=True)
    found = read_hardware(yaml.safe_load(written), where="measured")
    assert found.call == pytest.approx(3.5e-5)
    assert found.link.latency == pytest.approx(2e-5)
