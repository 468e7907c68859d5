"""What people and services ask of a store, while drivers work or not: submit, cancel, retry, approve."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, exc, insert, update

from imax_dist.errors import BadValue
from imax_dist.jobs.job import Job
from imax_dist.jobs.state import (
    Cancelled,
    Done,
    Failed,
    Proofed,
    Queued,
    Running,
    State,
    attempts_of,
    honour_cancel,
    name_of,
    to_record,
)
from imax_dist.jobs.store import changes
from imax_dist.jobs.store.changes import chunks
from imax_dist.jobs.store.database import Database
from imax_dist.jobs.store.keys import Name, Submission, require_same, rows_by_key
from imax_dist.jobs.store.reader import Reader
from imax_dist.jobs.store.row import Row, row_of
from imax_dist.jobs.store.tables import jobs
from imax_dist.settings_mapping import to_mapping

INSERT = insert(jobs)


class Queue(Reader):
    """Each method is one transaction. Raises CannotWrite if the store cannot be written."""

    def __init__(self, database: Database) -> None:
        super().__init__(self._read)
        self.database = database

    def close(self) -> None:
        self.database.close()

    def submit(self, submission: Submission) -> tuple[Row, bool]:
        """Queue a job behind those of its priority; its row, and whether it is new: see ``submit_all``."""
        ((row, new),) = self.submit_all([submission])
        return row, new

    def submit_all(self, submissions: Sequence[Submission]) -> list[tuple[Row, bool]]:
        """Queue jobs, all or none; rows in the same order, and whether each is new.

        Raises KeyConflict for a key of another request, BadValue for an id that is taken.
        """
        for again in (False, True):
            try:
                with self.transaction() as connection:
                    return self._submit(connection, submissions, ids_may_be_taken=again)
            except exc.IntegrityError:  # the id is another's, or the key was used this very moment
                if again:
                    raise
        raise AssertionError

    def cancel(self, ids: Iterable[str]) -> list[str]:
        """Cancel those of the jobs that are not over; the ids that are or will be cancelled.

        A running one is stopped by its driver after its step; the request is kept until a change of its
        state carries it out, whatever happens in between.
        """
        with self.transaction() as connection:
            found = [each for each in changes.lock_ids(connection, ids) if can_be_cancelled(each.state)]
            at_once = [(f, honour_cancel(f.state)) for f in found if not isinstance(f.state, Running)]
            changes.write(connection, self.database, at_once)
            running = [each.id for each in found if isinstance(each.state, Running)]
            for some in chunks(running):
                connection.execute(update(jobs).where(jobs.c.id.in_(some)).values(cancel=1))
        return [each.id for each in found]

    def retry(self, ids: Iterable[str] | None) -> list[str]:
        """Queue failed and cancelled jobs again (None: all of them); the ids of those that were."""
        return self._move(ids, ("failed", "cancelled"), retried)

    def approve(self, ids: Iterable[str] | None) -> list[str]:
        """Queue proofed jobs (None: all of them); their posters are made from the proofs."""
        return self._move(ids, ("proofed",), approved)

    def change(self, states: dict[str, State]) -> None:
        """What a person asked for: later than any cancellation, so that it ends it."""
        with self.transaction() as connection:
            found = changes.lock_ids(connection, states)
            changes.write(connection, self.database, [(each, states[each.id]) for each in found])

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing."""
        with self.database.writing() as connection:
            yield connection

    def _move(
        self, ids: Iterable[str] | None, states: Sequence[str], to: Callable[[State], State | None]
    ) -> list[str]:
        with self.transaction() as connection:
            if ids is None:
                found = changes.lock(connection, jobs.c.state.in_(states))
            else:
                found = changes.lock_ids(connection, ids)
            moves = [(each, new) for each in found if (new := to(each.state)) is not None]
            changes.write(connection, self.database, moves)
        return [each.id for each, _ in moves]

    def _read(self, read: Callable[[Connection], Any]) -> Any:
        with self.database.reading() as connection:
            return read(connection)

    def _submit(
        self, connection: Connection, submissions: Sequence[Submission], *, ids_may_be_taken: bool
    ) -> list[tuple[Row, bool]]:
        known: dict[Name, Row] = rows_by_key(connection, submissions)
        fresh = require_same(submissions, known)
        if ids_may_be_taken:
            _require_free(connection, [each.job.id for each in fresh])
        new = {row.id: row for row in self._insert(connection, fresh)}
        known |= {(row.owner, row.key): row for row in new.values() if row.key is not None}
        rows = [known.get((each.owner, each.key)) or new[each.job.id] for each in submissions]
        return [(row, new.pop(row.id, None) is not None) for row in rows]  # of equals the first is new

    def _insert(self, connection: Connection, fresh: Sequence[Submission]) -> list[Row]:
        if not fresh:
            return []
        revision, now = self.database.revision(connection), self.database.now(connection)
        first = self.database.number(connection, len(fresh))
        values = [
            {
                **job_values(each.job, each.state, now),
                "position": first + index,
                "number": first + index,
                "revision": revision,
                "owner": each.owner,
                "key": each.key,
                "webhook": each.webhook,
                "approval": int(each.state.approval),
            }
            for index, each in enumerate(fresh)
        ]
        connection.execute(INSERT, values)
        return [row_of(each) for each in values]


def job_values(job: Job, state: State, now: float) -> dict[str, Any]:
    """The columns of a job that is put in."""
    return {
        "id": job.id,
        "position": job.position,
        "priority": job.priority,
        "fingerprint": job.fingerprint,
        "request": json.dumps(to_mapping(job.request)),
        "state": name_of(state),
        "detail": json.dumps(to_record(state)),
        "changed": now,
        "created": now,
        "stage": "",
        "step": 0,
        "steps": 0,
        "cancel": 0,
        "driver": None,
    }


def retried(state: State) -> Queued | None:
    """What a retry makes of a state; None where it does not apply."""
    if not isinstance(state, Failed | Cancelled):
        return None
    return Queued(attempts=attempts_of(state), proofed=state.proofed, approval=state.approval)


def approved(state: State) -> Queued | None:
    """What an approval makes of a state; None where it does not apply."""
    return Queued(attempts=attempts_of(state), proofed=True) if isinstance(state, Proofed) else None


def can_be_cancelled(state: State) -> bool:
    """Whether it is not over."""
    return not isinstance(state, Done | Failed | Cancelled)


def _require_free(connection: Connection, ids: Sequence[str]) -> None:
    """Raises BadValue for an id that is a job's already."""
    for taken in changes.lock_ids(connection, ids):
        raise BadValue(f"id {taken.id!r} is taken; choose another")
