"""The pool's events on their way to those who wait for a job, from its thread to the application's loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from imax_dist.events import (
    InJob,
    JobCancelled,
    JobDone,
    JobFailed,
    JobProofed,
    JobQueued,
    JobStarted,
    PoolEvent,
    StepDone,
)

Learn = Callable[[str, float], None]
ENDS = (JobDone, JobFailed, JobCancelled, JobProofed, JobQueued)


def ignore_result(job: str, seconds: float) -> None:
    """Nobody learns what posters took."""
    del job, seconds


@dataclass
class Live:
    """How far a running job is."""

    began: float
    stage: str = ""
    step: int = 0
    steps: int = 0
    step_seconds: float = 0.0


@dataclass
class Feed:
    """A pool listener. ``learn`` hears what posters took; waiting is the loop's, all else any thread's."""

    learn: Learn = ignore_result
    live: dict[str, Live] = field(default_factory=dict)
    last_step: float = field(default_factory=time.monotonic)
    """When a gang last gave a sign of work, by the monotonic clock."""
    _loop: asyncio.AbstractEventLoop | None = None
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on events wake what waits in this loop."""
        self._loop = loop

    def __call__(self, event: PoolEvent) -> None:
        if not isinstance(event, (InJob, JobStarted, *ENDS)):
            return
        job = event.job
        self.last_step = time.monotonic()
        if isinstance(event, JobStarted):
            self.live[job] = Live(time.monotonic())
        elif isinstance(event, InJob) and isinstance(step := event.event, StepDone):
            live = self.live.setdefault(job, Live(time.monotonic()))
            live.stage, live.step, live.steps = step.stage, step.index, step.steps
            live.step_seconds = live.step_seconds if step.skipped else step.seconds
        elif isinstance(event, ENDS):
            self.live.pop(job, None)
            if isinstance(event, JobDone):
                self.learn(job, event.seconds)
        self.wake(job)

    def wake(self, job: str) -> None:
        """Something is new about a job."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job: str) -> None:
        for each in self._waiting.get(job, ()):
            each.set()

    @contextmanager
    def following(self, job: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something is new about the job; whoever waits clears it."""
        mine = asyncio.Event()
        self._waiting.setdefault(job, set()).add(mine)
        try:
            yield mine
        finally:
            self._waiting[job].discard(mine)
            if not self._waiting[job]:
                del self._waiting[job]
