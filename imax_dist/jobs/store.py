"""The one truth of who is in which state: SQLite (write-ahead log) beside the posters.

One batch owns a folder at a time (a lock the operating system drops with the process); ``imax status``,
``retry``, ``cancel`` and ``approve`` read and write beside it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from imax_dist.config import to_mapping
from imax_dist.errors import BadManifest, BadValue, CannotWrite, MissingInput
from imax_dist.jobs.job import Job, request_of
from imax_dist.jobs.state import (
    Done,
    Failed,
    Queued,
    Running,
    State,
    attempts_of,
    from_record,
    name_of,
    to_record,
)
from imax_dist.wording import duration, file_size

FILE = "batch.sqlite"
VERSION = 1
BUSY_S = 30.0
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
"""


class Row(NamedTuple):
    """A job, its state, and how far it is."""

    job: Job
    state: State
    changed: float
    """Seconds since the epoch when it came into this state."""
    stage: str
    step: int
    steps: int

    @property
    def state_name(self) -> str:
        return name_of(self.state)

    @property
    def failed(self) -> bool:
        return isinstance(self.state, Failed)

    @property
    def attempts(self) -> int:
        return attempts_of(self.state)

    def note(self) -> str:
        """What there is to say about the state, for people."""
        if isinstance(self.state, Failed):
            return self.state.message
        if isinstance(self.state, Done):
            return f"{duration(self.state.seconds)}, {file_size(self.state.bytes)}"
        if isinstance(self.state, Running):
            return f"{self.state.gang}: {self.stage} {self.step}/{self.steps}"
        return self.state.after if isinstance(self.state, Queued) else ""

    def as_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "id": self.job.id,
            "state": self.state_name,
            "attempts": self.attempts,
            "request": to_mapping(self.job.request),
            "detail": to_record(self.state),
            "changed": self.changed,
            "progress": {"stage": self.stage, "step": self.step, "steps": self.steps},
        }


def store_path(out: Path, shard: str | None = None) -> Path:
    """``batch.sqlite``, or one file a shard of a manifest that several hosts share."""
    name = FILE if shard is None else f"batch-{shard.replace('/', '-of-')}.sqlite"
    return out / name


def store_paths(out: Path) -> list[Path]:
    """The stores of a folder. Raises MissingInput if no batch was ever started there."""
    found = sorted(out.glob("batch*.sqlite"))
    if not found:
        raise MissingInput(f"{out} holds no batch; start one with: imax batch MANIFEST --out {out}")
    return found


class Store:
    """Jobs by id. Every method is one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_symlink():
            raise BadValue(f"{path} is a link, and a batch writes through no link; remove it")
        with _clear_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise BadManifest(
                    f"{path} is of version {version}, this program writes {VERSION}; use another folder"
                )
            self._database.executescript(SCHEMA)
            self._database.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        self._database.close()

    def add(self, jobs: Iterable[tuple[Job, State]]) -> None:
        """Put jobs in, or in again with another request."""
        now = time.time()
        values = [
            (
                *(job.id, job.position, job.priority, job.fingerprint),
                json.dumps(to_mapping(job.request)),
                *(name_of(state), json.dumps(to_record(state)), now),
            )
            for job, state in jobs
        ]
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO jobs (id, position, priority, fingerprint, request, state, detail, "
                "changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def reorder(self, jobs: Iterable[Job]) -> None:
        """The manifest's order and priorities, which may change without a poster changing."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE jobs SET position = ?, priority = ? WHERE id = ?",
                [(job.position, job.priority, job.id) for job in jobs],
            )

    def move(self, job_id: str, state: State) -> None:
        """The job is in ``state`` from now on."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = ?, detail = ?, changed = ?, cancel = 0 WHERE id = ?",
                (name_of(state), json.dumps(to_record(state)), time.time(), job_id),
            )

    def progress(self, job_id: str, stage: str, step: int, steps: int) -> None:
        """How far a running job is."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET stage = ?, step = ?, steps = ? WHERE id = ?", (stage, step, steps, job_id)
            )

    def ask_cancel(self, job_id: str) -> None:
        """Leave a note for the batch that is running this job."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))

    def cancel_asked(self) -> set[str]:
        """The ids someone wants cancelled."""
        with _clear_errors(self.path):
            found = self._database.execute("SELECT id FROM jobs WHERE cancel = 1").fetchall()
        return {row[0] for row in found}

    def rows(self, state: str | None = None) -> list[Row]:
        """Jobs in the order they are taken: by priority, then by place in the manifest."""
        return self._select("WHERE state = ?", state) if state else self._select("", None)

    def row(self, job_id: str) -> Row | None:
        """One job, or None."""
        return next(iter(self._select("WHERE id = ?", job_id)), None)

    def _select(self, where: str, value: str | None) -> list[Row]:
        query = (
            "SELECT id, position, priority, fingerprint, request, state, detail, changed, stage, step, steps "
            f"FROM jobs {where} ORDER BY priority DESC, position, id"
        )
        with _clear_errors(self.path):
            found = self._database.execute(query, () if value is None else (value,)).fetchall()
        return [self._row(columns) for columns in found]

    def _row(self, found: tuple[object, ...]) -> Row:
        job_id, position, priority, fingerprint, request, state, detail, changed, *rest = found
        job = Job(
            id=str(job_id),
            request=request_of(json.loads(str(request)), where=f"{self.path}: job {job_id}"),
            priority=int(str(priority)),
            position=int(str(position)),
            fingerprint=str(fingerprint),
        )
        stage, step, steps = rest
        kept = from_record(str(state), json.loads(str(detail)))
        return Row(job, kept, float(str(changed)), str(stage), int(str(step)), int(str(steps)))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _clear_errors(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.OperationalError | OSError):
            raise CannotWrite(
                f"the batch's store {path} cannot be used: {error}; see that its disk has room and takes "
                f"writes, then run the same command again"
            ) from error
        raise BadManifest(f"{path} is no store of this program: {error}; move it away") from error


def who() -> str:
    """This process, for people: host and process id."""
    return f"process {os.getpid()} on {os.uname().nodename}"
