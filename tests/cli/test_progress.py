"""A long stage without steps says how far it is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from imax_dist.cli import progress
from imax_dist.cli.progress import ProgressBars
from imax_dist.events import progress as counted


def test_without_a_terminal_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = ProgressBars()
    bars("stage.started", {"stage": "decode", "steps": 0})
    bars("progress", {"done": 1, "total": 4})
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SILENCE_S", 0.0)
    time.sleep(0.01)
    bars("progress", {"done": 3, "total": 4})
    bars("progress", {"done": 4, "total": 4})
    assert capsys.readouterr().err.split() == ["decode", "75%", "after", "0", "s"]


def test_on_a_terminal_a_bar_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bars = ProgressBars()
    bars("stage.started", {"stage": "endpoint", "steps": 0})
    for done in (1, 2, 4):
        bars("progress", {"done": done, "total": 4})
    bars("stage.done", {"stage": "endpoint", "seconds": 1.0})
    shown = capsys.readouterr().err
    assert "enlarge guidance: 100%" in shown
    assert "<00:00]" in shown


def test_events_come_at_most_once_a_second_and_at_the_end() -> None:
    heard: list[dict[str, Any]] = []
    count = counted(lambda _, fields: heard.append(fields), 1000)
    for _ in range(1000):
        count(1)
    assert heard[-1] == {"done": 1000, "total": 1000}
    assert len(heard) < 4
