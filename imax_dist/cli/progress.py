"""Progress on stderr: a bar a pass on a terminal, a line a stage otherwise; rank 0 only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, assert_never

from imax_dist.events import (
    CASCADE,
    CheckpointWritten,
    MemoryPeak,
    Note,
    Progress,
    RenderEvent,
    StageDone,
    StageStarted,
    StepDone,
)

LABELS = {
    "load": "load model",
    "prompt": "embed prompt",
    "native": "native pass",
    "endpoint": "enlarge guidance",
    **{name: name.replace("cascade", "cascade pass") for name in CASCADE},
    "extrapolated": "target-size pass",
    "decode": "decode",
}

PERCENT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
SILENCE_S = 30.0
"""Without a terminal: seconds until a stage without steps says how far it is."""


class ProgressBars:
    """A listener for imax_dist.events that draws."""

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.seconds: dict[str, float] = {}
        self.step_seconds: dict[str, list[float]] = {}
        self._bar: Any = None
        self._clock = clock
        self._started = self._began = self._said = clock()
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
                self._print(text)
            case CheckpointWritten(path):
                if self.verbose:
                    self._print(f"checkpoint {path}")
            case MemoryPeak():
                pass
            case _:
                assert_never(event)

    @property
    def total_seconds(self) -> float:
        return self._clock() - self._started

    def close(self) -> None:
        """Leave the terminal in order, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, stage: str, steps: int) -> None:
        self._stage, self._began = stage, self._clock()
        self._said = self._began
        if self.quiet or not steps or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self._bar = tqdm(total=steps, desc=f"{label(stage):>17}", unit="step", file=sys.stderr)

    def _step(self, step: StepDone) -> None:
        self.step_seconds.setdefault(step.stage, []).append(step.seconds)
        if self._bar is not None:
            if self._bar.n == 0 and step.index > 1:
                self._bar.initial = self._bar.n = step.index - 1
            self._bar.update(1)
        if self.verbose:
            counted = f"step {step.index:>3}/{step.steps}"
            self._print(f"{counted}  sigma {step.sigma:.4f}  {step.seconds:.2f} s")

    def _progress(self, done: int, total: int) -> None:
        """A bar of its own for a stage without steps, or now and then a line."""
        now = self._clock()
        if self._bar is None and not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            text = f"{label(self._stage):>17}"
            self._bar = tqdm(total=total, desc=text, bar_format=PERCENT, file=sys.stderr)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        elif now - self._said > SILENCE_S and done < total:
            self._said = now
            self._print(f"{label(self._stage):>17}  {done / total:.0%} after {now - self._began:.0f} s")

    def _done(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        had_bar = self._bar is not None
        self.close()
        if not had_bar:
            self._print(f"{label(stage):>17}  {seconds:6.2f} s")

    def _print(self, text: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def label(stage: str) -> str:
    """A stage in words for people."""
    return LABELS.get(stage, stage)
