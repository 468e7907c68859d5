"""Progress of one render on stderr: a bar a stage on a terminal, and a line a stage; rank 0 only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

from imax_dist.cli.bars import Bars
from imax_dist.events import (
    CheckpointStarted,
    CheckpointWritten,
    MemoryPeak,
    Note,
    PreviewWritten,
    Progress,
    RenderEvent,
    StageDone,
    StageStarted,
    StepDone,
)
from imax_dist.wording import stage_name

SILENCE_S = 30.0
"""Without a terminal: seconds until a stage says how far it is."""

LEAST_S = 0.005
"""A single rank on a CPU joins nobody: that is not a line of 0.00 s."""


class ProgressBars:
    """A listener for the events of one render that draws: a bar a stage, then a line with its seconds."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        began: float | None = None,
    ) -> None:
        """``began`` is when the command did, on ``clock``: what came before the first stage is one, too."""
        self.verbose = verbose
        self.seconds: dict[str, float] = {}
        self.step_seconds: dict[str, list[float]] = {}
        self._bars = Bars(quiet=quiet)
        self._clock = clock
        self._began = self._printed_at = clock()
        self._started = self._began if began is None else began
        self._starting = began is not None
        self._stage = "load"

    def __call__(self, event: RenderEvent) -> None:
        match event:
            case StageStarted(stage, steps):
                self._start(stage, steps)
            case StepDone():
                self._step(event)
            case Progress(done, total):
                self._progress(done, total)
            case StageDone(stage, seconds):
                self._done(stage, seconds)
            case Note(text):
                self._bars.write(text)
            case CheckpointWritten(path):
                if self.verbose:
                    self._bars.write(f"checkpoint {path}")
            case PreviewWritten(path):
                if self.verbose:
                    self._bars.write(f"preview {path}")
            case MemoryPeak() | CheckpointStarted():
                pass
            case _:
                assert_never(event)

    @property
    def total_seconds(self) -> float:
        return self._clock() - self._started

    def close(self) -> None:
        """Leave the terminal in order, also after an error."""
        self._bars.close()

    def _start(self, stage: str, steps: int) -> None:
        self._stage, self._began = stage, self._clock()
        self._printed_at = self._began
        if self._starting:
            self._starting = False
            self._done("start", self._began - self._started)
        if steps:
            self._bars.show(stage, f"{stage_name(stage):>17}", 0, steps)

    def _step(self, step: StepDone) -> None:
        self.step_seconds.setdefault(step.stage, []).append(step.seconds)
        rate = f"{step.seconds:.2f} s a step"
        self._bars.show(step.stage, f"{stage_name(step.stage):>17}", step.index, step.steps, note=rate)
        if self.verbose:
            counted = f"step {step.index:>3}/{step.steps}"
            self._bars.write(f"{counted}  sigma {step.sigma:.4f}  {step.seconds:.2f} s")
        elif step.index < step.steps:
            self._print_place(f"{stage_name(step.stage):>17}  step {step.index}/{step.steps}")

    def _progress(self, done: int, total: int) -> None:
        """A bar of its own for a stage without steps, or now and then a line."""
        text = f"{stage_name(self._stage):>17}"
        self._bars.show(self._stage, text, done, total, count=False)
        if done < total:
            self._print_place(f"{text}  {done / total:.0%}")

    def _print_place(self, place: str) -> None:
        """Without a bar, a line after every SILENCE_S."""
        now = self._clock()
        if not self._bars.drawn and now - self._printed_at > SILENCE_S:
            self._printed_at = now
            self._bars.write(f"{place} after {now - self._began:.0f} s")

    def _done(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._bars.hide(stage)
        if stage != "join" or seconds >= LEAST_S:
            self._bars.write(f"{stage_name(stage):>17}  {seconds:6.2f} s")
