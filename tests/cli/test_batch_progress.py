"""What a person sees while a batch runs: lines in a log, bars on a terminal, the time left in both."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from imax_dist.cli.batch_progress import BatchProgress
from imax_dist.events import (
    BatchDone,
    BatchStarted,
    ClusterStarting,
    GangBuilding,
    GangReady,
    InJob,
    JobDone,
    JobFailed,
    JobStarted,
    Progress,
    StageStarted,
    StepDone,
)
from imax_dist.jobs.board import Board
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.state import Done, Queued, Running
from imax_dist.jobs.store import Store
from imax_dist.pipeline.request import Request


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    store = Store(tmp_path / "batch.sqlite")
    store.add((make_job(Request(name), name=name), Queued()) for name in ("sun", "moon", "sea", "hill"))
    return Board(store)


def step(job: str, index: int, stage: str = "extrapolated") -> InJob:
    return InJob(job, StepDone(stage, index, 10, 0.5, seconds=0.5), "gang-0")


def run(board: Board, clock: Clock) -> None:
    """Four posters; one begins, is done, and the next is half way."""
    with BatchProgress(clock=clock) as progress:
        hear = progress.watch(board)
        hear(BatchStarted(4, 4))
        hear(ClusterStarting("local"))
        hear(GangBuilding("gang-0", 1))
        hear(GangReady("gang-0", 2, 3.0))
        board.move("sun", Running("gang-0", 0.0, Queued()))
        hear(JobStarted("sun", "gang-0"))
        for index in range(1, 11):
            clock.now += 1.0
            hear(step("sun", index))
        board.move("sun", Done("ab", 1, 10.0, 1))
        hear(JobDone("sun", "gang-0", seconds=10.0))
        hear(step("moon", 1, "native"))
        clock.now += 5.0
        hear(step("moon", 5))
        hear(JobFailed("moon", "no such model"))
        hear(BatchDone())


def test_a_log_gets_lines_with_the_time_left(
    board: Board, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run(board, clock)
    assert capsys.readouterr().err.splitlines() == [
        "4 posters, 4 to do",
        "starting Ray on this machine",
        "gang-0: starting 1 rank",
        "gang-0: 2 ranks ready after 3.0 s",
        "sun on gang-0: target-size pass 6/10, 0.50 s a step; 0 of 4 posters, about 34 s left",
        "sun done in 10.0 s; 3 queued, 1 done, about 30 s left",
        "moon on gang-0: target-size pass 5/10, 0.50 s a step; 1 of 4 posters, about 25 s left",
        "moon FAILED: no such model; 3 queued, 1 done, about 15 s left",
    ]


def test_a_terminal_gets_bars_that_go_away(
    board: Board, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    run(board, clock)
    drawn = screen.getvalue()
    assert "gang-0  target-size pass  sun" in drawn
    assert "1/4" in drawn
    assert "about 30 s left" in drawn
    assert "moon FAILED: no such model" in drawn
    lines_up_and_clear = "\x1b[1A\x1b[2K"
    assert drawn.endswith(lines_up_and_clear), "no bar is left"
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") > 0, "the cursor is shown again"


def test_quiet_says_nothing(board: Board, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with BatchProgress(quiet=True, clock=clock) as progress:
        hear = progress.watch(board)
        hear(BatchStarted(4, 4))
        hear(JobStarted("sun", "gang-0"))
        hear(step("sun", 1))
        clock.now += 100
        hear(step("sun", 2))
    assert capsys.readouterr().err == ""


def decode(progress: BatchProgress, board: Board, clock: Clock) -> None:
    """A decode by rows tells how far it is."""
    hear = progress.watch(board)
    hear(BatchStarted(1, 1))
    hear(JobStarted("sun", "gang-0"))
    hear(InJob("sun", StageStarted("decode"), "gang-0"))
    for done in (0, 100, 400):
        clock.now += 3.0
        hear(InJob("sun", Progress(done, 1000), "gang-0"))


def test_a_long_decode_is_reported_in_a_log(
    board: Board, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with BatchProgress(clock=clock) as progress:
        decode(progress, board, clock)
    assert capsys.readouterr().err.splitlines()[1:] == ["sun on gang-0: decode 40 %; 0 of 1 posters"]


def test_a_long_decode_is_reported_by_the_gangs_bar(
    board: Board, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with BatchProgress(clock=clock) as progress:
        decode(progress, board, clock)
    drawn = [line for line in terminal.getvalue().splitlines() if "gang-0  decode  sun" in line]
    assert any("40%" in line for line in drawn)
