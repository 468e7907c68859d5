"""The one truth of who is in which state: SQLite beside the posters.

One driver owns a folder at a time (lease.py); ``imax status``, ``retry``, ``cancel`` and ``approve`` read and
write beside it. A write-ahead log where the file system has shared memory, else a journal.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from imax_dist.config import to_mapping
from imax_dist.errors import BadValue, FolderBusy
from imax_dist.jobs.job import Job
from imax_dist.jobs.rows import (
    BUSY_S,
    VERSION,
    Row,
    clear_errors,
    require_version,
    rows_in,
    states_in,
)
from imax_dist.jobs.state import (
    Cancelled,
    Done,
    Running,
    State,
    honour_cancel,
    interrupted,
    name_of,
    to_record,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    changed REAL NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, priority DESC, position);
CREATE TABLE IF NOT EXISTS driver (number INTEGER NOT NULL);
INSERT INTO driver SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM driver);
"""


def free() -> None:
    """The guard of a store that needs none."""


class Store:
    """Jobs by id. Every method is one transaction; ``guard`` is called before each one commits."""

    def __init__(self, path: Path, *, guard: Callable[[], None] = free, vfs: str | None = None) -> None:
        self.path = path
        self._guard = guard
        self._fence: int | None = None
        if path.is_symlink():
            raise BadValue(f"{path} is a link, and a batch writes through no link; remove it")
        with clear_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            place = f"{path.absolute().as_uri()}?mode=rwc" + (f"&vfs={vfs}" if vfs else "")
            self._database = sqlite3.connect(place, timeout=BUSY_S, isolation_level=None, uri=True)
            try:
                self.shared = self._choose_journal()
                require_version(self._database, path)
                self._database.executescript(SCHEMA)
                self._database.execute(f"PRAGMA user_version={VERSION}")
            except BaseException:
                self._database.close()
                raise

    def _choose_journal(self) -> bool:
        """Whether the file system has the shared memory of a write-ahead log; without, TRUNCATE is used."""
        (mode,) = self._database.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            self._database.execute("PRAGMA journal_mode=TRUNCATE")
        self._database.execute("PRAGMA synchronous=FULL")
        return bool(mode == "wal")

    def check(self) -> None:
        """Call the guard, and see that no other driver has taken the store over."""
        with clear_errors(self.path):
            self._require_fence()
        self._guard()

    def close(self) -> None:
        self._database.close()

    def fence(self) -> None:
        """Take the store over: an earlier driver's next commit raises FolderBusy."""
        with self.transaction() as database:
            database.execute("UPDATE driver SET number = number + 1")
            (number,) = database.execute("SELECT number FROM driver").fetchone()
        self._fence = int(number)

    def add(self, jobs: Iterable[tuple[Job, State]]) -> None:
        """Put jobs in, or in again with another request; a cancellation of the old one is over."""
        now = time.time()
        values = [
            (
                *(job.id, job.position, job.priority, job.fingerprint),
                json.dumps(to_mapping(job.request)),
                *(name_of(state), json.dumps(to_record(state)), now),
            )
            for job, state in jobs
        ]
        with self.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO jobs (id, position, priority, fingerprint, request, state, detail, "
                "changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def reorder(self, jobs: Iterable[Job]) -> None:
        """The manifest's order and priorities, which may change without a poster changing."""
        with self.transaction() as database:
            database.executemany(
                "UPDATE jobs SET position = ?, priority = ? WHERE id = ?",
                [(job.position, job.priority, job.id) for job in jobs],
            )

    def move(self, job_id: str, state: State) -> State:
        """The job is in ``state`` from now on, or Cancelled where somebody has cancelled it: returned."""
        return self.move_all({job_id: state})[job_id]

    def move_all(self, states: Mapping[str, State]) -> dict[str, State]:
        """The same for many jobs, in one transaction.

        Whether one was cancelled is looked up in the transaction that changes its state, so that no change
        of state, at whatever moment, forgets it.
        """
        with self.transaction() as database:
            cancelled = {row[0] for row in database.execute("SELECT id FROM jobs WHERE cancel = 1")}
            kept = {job: honour_cancel(s) if job in cancelled else s for job, s in states.items()}
            _update(database, kept)
        return kept

    def recover(self) -> None:
        """What an earlier driver left running is queued again, and what was cancelled is: one transaction."""
        cancelled = self.cancel_asked()
        self.move_all(
            {
                job: interrupted(state) if isinstance(state, Running) else state
                for job, state in self.states().items()
                if job in cancelled or isinstance(state, Running)
            }
        )

    def change(self, states: Mapping[str, State]) -> None:
        """What a person asked for: later than any cancellation, so that it ends it."""
        with self.transaction() as database:
            _update(database, states)
            database.executemany("UPDATE jobs SET cancel = 0 WHERE id = ?", [(job,) for job in states])

    def progress(self, job_id: str, stage: str, step: int, steps: int) -> None:
        """How far a running job is."""
        with self.transaction() as database:
            database.execute(
                "UPDATE jobs SET stage = ?, step = ?, steps = ? WHERE id = ?", (stage, step, steps, job_id)
            )

    def cancel(self, ids: Iterable[str], *, at_once: bool) -> None:
        """Cancel those of the jobs that are not over; kept until a change of state carries it out.

        ``at_once``: no driver is there to do so.
        """
        with self.transaction() as database:
            database.executemany(
                "UPDATE jobs SET cancel = 1 WHERE id = ? AND state IN ('queued', 'running', 'proofed')",
                [(job,) for job in ids],
            )
            if at_once:
                cancelled = self.cancel_asked()
                states = states_in(database).items()
                _update(database, {job: honour_cancel(s) for job, s in states if job in cancelled})

    def cancel_asked(self) -> set[str]:
        """The ids of jobs that are to be cancelled and are not yet."""
        with clear_errors(self.path):
            found = self._database.execute("SELECT id FROM jobs WHERE cancel = 1").fetchall()
        return {row[0] for row in found}

    def states(self) -> dict[str, State]:
        """Every job's state by its id."""
        with clear_errors(self.path):
            return states_in(self._database)

    def rows(self) -> list[Row]:
        """Every job, in the order they are to be taken."""
        with clear_errors(self.path):
            return rows_in(self._database, self.path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises CannotWrite, and what the guard raises; FolderBusy if fenced off."""
        with clear_errors(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._require_fence()
                yield self._database
                self._guard()
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _require_fence(self) -> None:
        if self._fence is None:
            return
        (number,) = self._database.execute("SELECT number FROM driver").fetchone()
        if number != self._fence:
            raise FolderBusy(f"{self.path.parent} was taken over by another batch; this one ends")


def _update(database: sqlite3.Connection, states: Mapping[str, State]) -> None:
    """States that end a cancellation clear it: carried out, or overtaken by the finished poster."""
    now = time.time()
    database.executemany(
        "UPDATE jobs SET state = ?, detail = ?, changed = ?, cancel = cancel AND ? WHERE id = ?",
        [
            (name_of(s), json.dumps(to_record(s)), now, not isinstance(s, Cancelled | Done), job)
            for job, s in states.items()
        ],
    )
