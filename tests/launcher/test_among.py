"""Under plain torchrun only the ranks themselves can see that one of them hangs: they do, and name it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tiny_flux import make_tiny_flux

from imax_dist.launcher.among import watched
from imax_dist.launcher.watch import JUDGED, RankWatch
from imax_dist.liveness.beacon import Beacon, Place
from imax_dist.liveness.heartbeat import RankReport, ReportFile
from imax_dist.liveness.silence import Silence
from imax_dist.parallel.topology import Topology

ROOT = Path(__file__).parents[2]
QUICK = Silence(heartbeat=1.0, exchange=1.0)


def test_a_rank_alone_looks_at_nobody(tmp_path: Path) -> None:
    alone = Topology.alone()
    with watched(alone, None, evidence=tmp_path / "none") as topology:
        assert topology is alone


def test_a_launcher_that_looks_itself_gets_the_beacons(tmp_path: Path) -> None:
    with watched(Topology.alone(), tmp_path, evidence=tmp_path / "none") as topology:
        assert isinstance(topology.marks, Beacon)
        assert (tmp_path / "rank-0.json").is_file()


def test_of_several_that_look_one_speaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(["sleep", "60"])
    ReportFile(tmp_path, 1)(RankReport(1, beat=1, place=Place("extrapolated", 28, 3, 7), pid=child.pid))
    watches = [RankWatch(tmp_path, evidence=tmp_path / "sea.hang", limits=QUICK) for _ in range(3)]
    with watches[0], watches[1], watches[2]:
        assert child.wait(timeout=60) == -signal.SIGKILL
    assert capfd.readouterr().err.count("has not answered for") == 1
    assert (tmp_path / JUDGED).exists()


def rank_process(launcher: int, rank: int) -> psutil.Process:
    children = psutil.Process(launcher).children(recursive=True)
    return next(child for child in children if child.environ().get("RANK") == str(rank))


@pytest.mark.slow
@pytest.mark.machines
def test_a_rank_stopped_under_torchrun_is_named_and_the_poster_ends(tmp_path: Path) -> None:
    """The first, which holds the others' store."""
    model = make_tiny_flux(tmp_path / "model")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "imax_dist"]
    request = ["generate", "a red sun", "--model", model, "--size", "192x192", "--steps", "900", "-v"]
    process = subprocess.Popen(
        [
            sys.executable,
            *launcher,
            *map(str, [*request, "--preset", "one_jump", "--out", tmp_path / "sea.png"]),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        heard: list[str] = []
        for line in process.stderr:
            heard.append(line)
            if re.match(r"step +9/", line):
                break
        assert heard[-1].startswith("step"), "".join(heard)
        rank_process(process.pid, 0).send_signal(signal.SIGSTOP)
        err = process.stderr.read()
        assert process.wait(60) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "imax: rank 0 (" in err
    assert "has not answered for" in err
    assert json.loads((tmp_path / "sea.hang" / "diagnosis.json").read_text())["kind"] == "silent"
    assert (tmp_path / "sea.hang" / "rank-1.stacks.txt").is_file()
    assert list((tmp_path / "sea.checkpoints").glob("step-*.safetensors"))
    assert not list(tmp_path.glob("sea.png"))
