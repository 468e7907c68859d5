"""The launcher's watch over its ranks: it kills what stands still, keeps evidence, and says that it lives."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from imax_dist.cli.main import main
from imax_dist.events import StageStarted
from imax_dist.launcher import elastic, watch
from imax_dist.launcher.watch import LOOK_S, RankWatch
from imax_dist.liveness.beacon import Beacon, Place
from imax_dist.liveness.heartbeat import (
    EVIDENCE_WANTED,
    Heartbeat,
    RankReport,
    ReportFile,
    beating,
    read_reports,
)
from imax_dist.liveness.silence import Silence

QUICK = Silence(heartbeat=1.0, exchange=1.0)


def test_a_rank_that_stands_still_is_killed_and_what_is_known_of_it_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, evidence, alive = tmp_path / "beacons", tmp_path / "sea.hang", tmp_path / "alive"
    folder.mkdir()
    child = subprocess.Popen(["sleep", "60"])
    place = Place("extrapolated", 28, 3, 7)
    ReportFile(folder, 1)(RankReport(1, beat=1, place=place, host="node-b", pid=child.pid))
    with RankWatch(folder, evidence=evidence, alive=alive, limits=QUICK):
        assert child.wait(timeout=60) == -signal.SIGKILL
    assert alive.exists()
    said = capfd.readouterr().err
    assert f"imax launch: rank 1 (node-b, process {child.pid}) has not answered for" in said
    assert f"last seen in block 7 of step 4 of extrapolated; evidence in {evidence}" in said
    diagnosis = json.loads((evidence / "diagnosis.json").read_text())
    assert diagnosis["kind"] == "silent"
    assert diagnosis["ranks"][0]["process"].startswith("S (sleeping)")


def test_ranks_that_beat_and_ranks_that_have_ended_are_left_alone(tmp_path: Path) -> None:
    with RankWatch(tmp_path, evidence=tmp_path / "none", limits=QUICK):
        with beating(0, tmp_path, device=torch.device("cpu")) as beacon:
            beacon.on_event(StageStarted("extrapolated", 28))
            for _ in range(8):
                time.sleep(0.25)
                beacon.block()
        assert read_reports(tmp_path) == []
        time.sleep(1.5)
    assert not (tmp_path / "none").exists()


def test_a_notice_that_the_machine_goes_away_is_as_good_as_a_sigterm(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    notice, beacons = tmp_path / "notice", tmp_path / "beacons"
    beacons.mkdir()
    try:
        with RankWatch(beacons, evidence=tmp_path / "none", notice=notice):
            time.sleep(3 * LOOK_S)
            assert not told.is_set()
            notice.touch()
            assert told.wait(60)
            told.clear()
            time.sleep(3 * LOOK_S)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not told.is_set(), "a second signal would end the ranks at once"
    said = (
        f"imax launch: {notice} announces that this machine is being taken back; stopping with a checkpoint\n"
    )
    assert capfd.readouterr().err == said


def test_its_thread_holds_no_memory_of_another_rank_s_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new thread's device is GPU 0, and an event asked there opens a context on it: half a GiB a rank."""
    set_to: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", set_to.append)
    for device in (torch.device("cuda", 3), torch.device("cpu")):
        Heartbeat(3, Beacon(), print, device=device).start().stop()
    assert set_to == [torch.device("cuda", 3)]


def test_a_rank_leaves_its_stacks_when_it_is_asked(tmp_path: Path) -> None:
    file = ReportFile(tmp_path, 3)
    heartbeat = Heartbeat(3, Beacon(), file, device=torch.device("cpu")).start()
    (tmp_path / EVIDENCE_WANTED).touch()
    deadline = time.monotonic() + 60
    while not (tmp_path / "rank-3.stacks.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    heartbeat.stop()
    assert "test_a_rank_leaves_its_stacks_when_it_is_asked" in (tmp_path / "rank-3.stacks.txt").read_text()
    (report,) = read_reports(tmp_path)
    assert (report.rank, report.place.stage) == (3, "between stages")
    assert report.beat >= 1


@pytest.mark.parametrize(
    ("given", "allowed"), [([], 60.0), (["--compile", "auto"], 300.0), (["--compile", "regional"], 300.0)]
)
def test_first_steps_have_more_time_only_where_they_compile_blocks(
    given: list[str], allowed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[elastic.Watched] = []
    limits: list[Silence] = []

    def ended_well(command: list[str], nodes: elastic.Nodes, **named: Any) -> int:
        seen.append(named["watch"])
        return 0

    monkeypatch.setattr(elastic, "run_ranks", ended_well)
    monkeypatch.setattr(watch, "Judge", lambda silence, _: limits.append(silence))
    out = tmp_path / "sea.png"
    assert main(["launch", "--ranks", "2", "generate", "a red sun", "--out", str(out), *given]) == 0
    RankWatch(tmp_path, **vars(seen[0]))
    assert [silence.first_block for silence in limits] == [allowed]
    assert seen[0].evidence == tmp_path / "sea.hang"
