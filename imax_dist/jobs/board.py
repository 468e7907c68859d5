"""The jobs of one run in memory; every change goes to the store before anyone acts on it.

Others change the store, too: people, services, drivers on other hosts. ``look`` takes in what they did.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from imax_dist.errors import CannotWrite
from imax_dist.jobs.job import Job
from imax_dist.jobs.policy import STEPPING
from imax_dist.jobs.state import Queued, Running, State, name_of
from imax_dist.jobs.store import Row, Store
from imax_dist.jobs.store.reader import Entry

PROGRESS_EVERY_S = 1.0
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
"""Between two attempts to write to a full disk, or to a database that does not answer."""
REMEMBERED_JOBS = 4096
Mark = tuple[int, int]
"""How far a job is: (pass, step)."""
Value = TypeVar("Value")
Place = tuple[int, int, str]
"""In the queue: (minus priority, position, id)."""


class Board:
    """States of the jobs ``ids`` (all of the store's by default, also those that come later)."""

    def __init__(
        self,
        store: Store,
        ids: Iterable[str] | None = None,
        *,
        open_ended: bool = False,
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.patience_s = patience_s
        self.note: Callable[[str], None] = silent
        self.states: dict[str, State] = {}
        self.counts: Counter[str] = Counter()
        """Jobs by the name of their state."""
        self.open_ended = open_ended
        self._clock = clock
        self.sleep = sleep
        self._ids = None if ids is None else set(ids)
        self._own_jobs: set[str] = set()
        self._to_cancel: set[str] = set()
        self._places: dict[str, Place] = {}
        self._line: list[Place] = []
        self._wanted: Counter[int | None] = Counter()
        self._furthest: dict[str, Mark] = {}
        self._written: dict[str, float] = {}
        self._away_since: float | None = None
        self._news: list[str] = []
        self._since = 0
        self._job = lru_cache(REMEMBERED_JOBS)(self._read_job)
        store.recover()
        self._catch_up()

    def look(self) -> list[str]:
        """Take in what others did to the store; the ids of jobs whose state they changed.

        A store that cannot be reached is waited for, up to ``patience_s``: nothing is taken in then.
        Raises CannotWrite after that, FolderBusy if another driver has taken over.
        """
        try:
            self.store.check()
            self._to_cancel = self.store.cancel_requested() & self._own_jobs
            news, self._news = [*self._news, *self._catch_up()], []
        except CannotWrite as error:
            self._endure(error)
            return []
        self._away_since = None
        return news

    def job(self, job_id: str) -> Job:
        """The request and its name."""
        return self._job(job_id)

    def _read_job(self, job_id: str) -> Job:
        return self._patiently(lambda: self.store.jobs([job_id])[job_id])

    def waiting(self) -> Iterator[tuple[str, Queued]]:
        """Queued jobs, in the order they are to be taken; to be read before the board is changed."""
        for _, _, job_id in self._line:
            state = self.states[job_id]
            assert isinstance(state, Queued)
            yield job_id, state

    @property
    def waits(self) -> int:
        """How many are queued."""
        return len(self._line)

    def ahead(self, row: Row) -> int:
        """Queued jobs that are taken before this one, as of the last ``look``; any thread may ask."""
        return bisect.bisect_left(self._line, _place(row))

    def ranks_wanted(self) -> set[int | None]:
        """Ranks that queued jobs ask for; None: the usual."""
        return set(self._wanted)

    def running(self) -> list[str]:
        """Jobs that this driver's gangs have."""
        return sorted(self._own_jobs)

    def cancelled(self) -> set[str]:
        """Running jobs of this driver that somebody has cancelled, as of the last ``look``."""
        return self._to_cancel & self._own_jobs

    @property
    def over(self) -> bool:
        """Nothing is left to do in this run."""
        return not self.open_ended and not self.counts["queued"] and not self.counts["running"]

    def claim(self, ids: Sequence[str], gang: str, *, most: int) -> dict[str, Running]:
        """Up to ``most`` of the queued jobs ``ids`` are the gang's from now on; others may be faster."""
        taken = self._patiently(lambda: self.store.claim(ids, gang, most=most))
        for job_id, state in taken.items():
            self._own_jobs.add(job_id)
            self._set(job_id, state)
        if len(taken) < min(most, len(ids)):
            with suppress(CannotWrite):  # the next look takes it in
                self._news += self._catch_up()
        return taken

    def move(self, job_id: str, state: State) -> State:
        """The job is in ``state`` from now on, or cancelled if somebody has asked for it: returned.

        A full disk is waited for, up to ``patience_s``. Raises CannotWrite then.
        """
        kept = self._patiently(lambda: self.store.move(job_id, state))
        if not isinstance(kept, Running):
            self._own_jobs.discard(job_id)
        self._set(job_id, kept)
        return kept

    def furthest(self, job_id: str) -> Mark:
        """The furthest step any attempt has reached."""
        return self._furthest.get(job_id, (0, 0))

    def step(self, job_id: str, stage: str, step: int, steps: int) -> None:
        """A step was made; written down at most once a second a job."""
        self._furthest[job_id] = max(self.furthest(job_id), mark(stage, step))
        now = self._clock()
        if now - self._written.get(job_id, 0.0) >= PROGRESS_EVERY_S or step == steps:
            self._written[job_id] = now
            with suppress(CannotWrite):  # for people who look; what has to be kept is a change of state
                self.store.progress(job_id, stage, step, steps)

    def rows(self) -> list[Row]:
        """As the store has them, of this run's jobs."""
        return [row for row in self.store.rows() if row.id in self.states]

    def _catch_up(self) -> list[str]:
        self._since, entries = self.store.changes(self._since)
        return [entry.id for entry in entries if self._take_in(entry)]

    def _take_in(self, entry: Entry) -> bool:
        if (self._ids is not None and entry.id not in self._ids) or entry.id in self._own_jobs:
            return False
        known, now = self.states.get(entry.id), _ready(entry.state)
        place = _place(entry)
        if self._places.get(entry.id) == place and known in (now, entry.state):
            return False
        self._furthest[entry.id] = max(self.furthest(entry.id), mark(entry.stage, entry.step))
        self._set(entry.id, now, place)
        return known != now

    def _set(self, job_id: str, state: State, place: Place | None = None) -> None:
        before = self.states.get(job_id)
        if isinstance(before, Queued):
            del self._line[bisect.bisect_left(self._line, self._places[job_id])]
            self._wanted -= Counter([before.ranks])
        if before is not None:
            self.counts[name_of(before)] -= 1
        if place is not None:
            self._places[job_id] = place
        self.states[job_id] = state
        self.counts[name_of(state)] += 1
        if isinstance(state, Queued):
            bisect.insort(self._line, self._places[job_id])
            self._wanted[state.ranks] += 1

    def _endure(self, error: CannotWrite) -> None:
        """The store cannot be reached: gangs work on, and nothing is lost."""
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
            self.note(f"{error} (trying again for up to {self.patience_s:g} s)")
        if now - self._away_since > self.patience_s:
            raise error

    def _patiently(self, act: Callable[[], Value]) -> Value:
        began, wait = self._clock(), SHORTEST_WAIT_S
        while True:
            try:
                return act()
            except CannotWrite as error:
                if self._clock() - began + wait > self.patience_s:
                    raise
                self.note(f"{error} (trying again for up to {self.patience_s:g} s)")
            self.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)


def silent(text: str) -> None:
    """Nobody reads notes."""


def _place(job: Row | Entry) -> Place:
    return -job.priority, job.position, job.id


def _ready(state: State) -> State:
    """A wait is of the clock of the run that began it."""
    return replace(state, not_before=0.0) if isinstance(state, Queued) and state.not_before else state


def mark(stage: str, step: int) -> Mark:
    """A place in a render that can be compared with another."""
    return (STEPPING.index(stage), step) if stage in STEPPING else (0, 0)
