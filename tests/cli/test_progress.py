"""A long stage without steps says how far it is."""

from __future__ import annotations

import pytest

from imax_dist.cli.progress import ProgressBars
from imax_dist.events import Progress, RenderEvent, StageDone, StageStarted
from imax_dist.events import progress as counted


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0, 100, 129, 131, 132])
    bars = ProgressBars(clock=lambda: next(seconds))
    bars(StageStarted("decode"))
    bars(Progress(1, 4))
    assert capsys.readouterr().err == ""
    bars(Progress(3, 4))
    bars(Progress(4, 4))
    assert capsys.readouterr().err.split() == ["decode", "75%", "after", "31", "s"]


def test_on_a_terminal_a_bar_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bars = ProgressBars()
    bars(StageStarted("endpoint"))
    for done in (1, 2, 4):
        bars(Progress(done, 4))
    bars(StageDone("endpoint", 1.0))
    shown = capsys.readouterr().err
    assert "enlarge guidance: 100%" in shown
    assert "<00:00]" in shown


def test_events_come_at_most_once_a_second_and_at_the_end() -> None:
    heard: list[RenderEvent] = []
    count = counted(heard.append, 1000)
    for _ in range(1000):
        count(1)
    assert heard[-1] == Progress(1000, 1000)
    assert len(heard) < 4
