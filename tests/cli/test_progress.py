"""A long stage says how far it is, on a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest

from imax_dist.cli.progress import ProgressBars
from imax_dist.events import Note, Progress, RenderEvent, StageDone, StageStarted, StepDone
from imax_dist.events import progress as counted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0, 100, 129, 131, 132])
    bars = ProgressBars(clock=lambda: next(seconds))
    bars(StageStarted("decode"))
    bars(Progress(1, 4))
    assert capsys.readouterr().err == ""
    bars(Progress(3, 4))
    bars(Progress(4, 4))
    assert capsys.readouterr().err.split() == ["decode", "75%", "after", "31", "s"]


def test_without_a_terminal_a_long_pass_counts_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0, 100, 120, 140, 160, 181])
    bars = ProgressBars(clock=lambda: next(seconds))
    bars(StageStarted("extrapolated", 5))
    for index in range(1, 6):
        bars(StepDone("extrapolated", index, 5, 0.5, seconds=20.0))
    said = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert said == ["target-size pass step 2/5 after 40 s", "target-size pass step 4/5 after 81 s"]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


def test_on_a_terminal_a_bar_that_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    bars = ProgressBars()
    bars(StageStarted("endpoint"))
    for done in (1, 2, 4):
        bars(Progress(done, 4))
    bars(StageDone("endpoint", 1.0))
    bars.close()
    shown = terminal.getvalue()
    assert "enlarge guidance" in shown
    assert "25%" in shown
    assert " enlarge guidance    1.00 s" in shown


def test_steps_are_counted_also_from_a_checkpoint_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    bars = ProgressBars()
    bars(StageStarted("native", 20))
    bars(StepDone("native", 13, 20, 0.5, seconds=0.25))
    bars._bars._progress.refresh()
    shown = terminal.getvalue()
    bars.close()
    assert "13/20" in shown
    assert "0.25 s a step" in shown
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines()) <= 80


def test_quiet_draws_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    bars = ProgressBars(quiet=True)
    for event in (StageStarted("native", 2), StepDone("native", 1, 2, 1.0, seconds=0.5), Note("resumed")):
        bars(event)
    bars(StageDone("native", 1.0))
    bars.close()
    assert terminal.getvalue() == ""
    assert bars.seconds == {"native": 1.0}


def test_text_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square brackets are no markup, and a long line is not cut."""
    terminal = on_terminal(monkeypatch)
    bars = ProgressBars()
    bars(StageStarted("native", 2))
    text = "not resumed: [bold]step.safetensors[/bold] " + "x" * 100
    bars(Note(text))
    bars.close()
    assert text in terminal.getvalue()


def test_events_come_at_most_once_a_second_and_at_the_end() -> None:
    heard: list[RenderEvent] = []
    count = counted(heard.append, 1000)
    for _ in range(1000):
        count(1)
    assert heard[-1] == Progress(1000, 1000)
    assert len(heard) < 4
