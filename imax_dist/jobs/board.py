"""The jobs of one run in memory; every change goes to the store before anyone acts on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from imax_dist.errors import CannotWrite
from imax_dist.jobs.job import Job
from imax_dist.jobs.policy import STEPPING
from imax_dist.jobs.rows import Row
from imax_dist.jobs.state import OVER, Queued, Running, State
from imax_dist.jobs.store import Store

PROGRESS_EVERY_S = 1.0
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
"""Between two attempts to write to a full disk."""
Mark = tuple[int, int]
"""How far a job is: (pass, step)."""


class Board:
    """States of the jobs ``ids`` (all of the store's by default)."""

    def __init__(
        self,
        store: Store,
        ids: Iterable[str] | None = None,
        *,
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.patience_s = patience_s
        self.note: Callable[[str], None] = silent
        self._clock = clock
        self._sleep = sleep
        store.recover()
        wanted = None if ids is None else set(ids)
        rows = [row for row in store.rows() if wanted is None or row.job.id in wanted]
        self.jobs: dict[str, Job] = {row.job.id: row.job for row in rows}
        self.states: dict[str, State] = {row.job.id: _ready(row.state) for row in rows}
        self._furthest = {row.job.id: mark(row.stage, row.step) for row in rows}
        self._written: dict[str, float] = {}

    def waiting(self) -> list[tuple[str, Queued]]:
        """Queued jobs, in the order they are to be taken."""
        return [(job, state) for job, state in self.states.items() if isinstance(state, Queued)]

    def running(self) -> list[str]:
        return [job for job, state in self.states.items() if isinstance(state, Running)]

    def cancelled(self) -> set[str]:
        """Jobs that somebody has cancelled and that are not yet."""
        return self.store.cancel_asked() & set(self.jobs)

    @property
    def over(self) -> bool:
        """Nothing is left to do in this run."""
        return all(isinstance(state, OVER) for state in self.states.values())

    def move(self, job_id: str, state: State) -> State:
        """The job is in ``state`` from now on, or cancelled if somebody has asked for it: returned.

        A full disk is waited for, up to ``patience_s``. Raises CannotWrite then.
        """
        self.states[job_id] = self._patiently(lambda: self.store.move(job_id, state))
        return self.states[job_id]

    def furthest(self, job_id: str) -> Mark:
        """The furthest step any attempt has reached."""
        return self._furthest[job_id]

    def step(self, job_id: str, stage: str, step: int, steps: int) -> None:
        """A step was made; written down at most once a second a job."""
        self._furthest[job_id] = max(self._furthest[job_id], mark(stage, step))
        now = self._clock()
        if now - self._written.get(job_id, 0.0) >= PROGRESS_EVERY_S or step == steps:
            self._written[job_id] = now
            with suppress(CannotWrite):  # for people who look; what has to be kept is a change of state
                self.store.progress(job_id, stage, step, steps)

    def _patiently(self, write: Callable[[], State]) -> State:
        began, wait = self._clock(), SHORTEST_WAIT_S
        while True:
            try:
                return write()
            except CannotWrite as error:
                if self._clock() - began + wait > self.patience_s:
                    raise
                self.note(f"{error} (trying again for up to {self.patience_s:g} s)")
            self._sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def rows(self) -> list[Row]:
        """As the store has them, of this run's jobs."""
        return [row for row in self.store.rows() if row.job.id in self.jobs]


def silent(text: str) -> None:
    """Nobody reads notes."""


def _ready(state: State) -> State:
    """A wait that an earlier run began, by its own clock, is over."""
    return replace(state, not_before=0.0) if isinstance(state, Queued) else state


def mark(stage: str, step: int) -> Mark:
    """A place in a render that can be compared with another."""
    return (STEPPING.index(stage), step) if stage in STEPPING else (0, 0)
