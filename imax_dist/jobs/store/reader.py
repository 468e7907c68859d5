"""A store as people, services and drivers look at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Select, bindparam, func, select, text, tuple_

from imax_dist.jobs.state import State
from imax_dist.jobs.store.files import read_store
from imax_dist.jobs.store.row import Row, row_of, state_of
from imax_dist.jobs.store.tables import drivers, events, jobs

Value = TypeVar("Value")
IN_ORDER = "ORDER BY priority DESC, position, id"
"""The order jobs are taken in."""
SILENT_S = 20.0
"""A driver without a heartbeat for so long has lost its jobs."""


QUEUED = select(func.count()).select_from(jobs).where(jobs.c.state == "queued")
MORE_URGENT = QUEUED.where(jobs.c.priority > bindparam("priority"))
EARLIER = QUEUED.where(
    jobs.c.priority == bindparam("priority"),
    tuple_(jobs.c.position, jobs.c.id) < tuple_(bindparam("position"), bindparam("job")),
)
AHEAD = select(MORE_URGENT.scalar_subquery() + EARLIER.scalar_subquery())
COUNTS_OF = (
    select(jobs.c.owner, func.count())
    .where(jobs.c.owner.in_(bindparam("owners", expanding=True)))
    .where(jobs.c.state.in_(bindparam("states", expanding=True)))
    .group_by(jobs.c.owner)
)
FIND = select(jobs).where(jobs.c.id == bindparam("job"))
"""What a service asks all the time is built once: building a statement costs more than asking it."""


class Page(NamedTuple):
    """Jobs, the newest first; ``next`` asks for those after them, and is None at the end."""

    rows: list[Row]
    next: int | None


class JobEventRow(NamedTuple):
    """A change of a job's state; ``number`` rises, also across jobs."""

    number: int
    moment: float
    event: dict[str, Any]
    """As a line of events.jsonl: ``{"event": "job.done", "job": ..., ...}``."""


class Entry(NamedTuple):
    """What a driver keeps of every job."""

    id: str
    priority: int
    position: int
    stage: str
    step: int
    state: State


class DriverRow(NamedTuple):
    """A driver at work; ``silent_s`` since its last heartbeat."""

    number: int
    name: str
    since: float
    silent_s: float
    holder: str = ""
    """Its process, as JSON (jobs/lease.py)."""

    @property
    def alive(self) -> bool:
        return self.silent_s < SILENT_S


class Reader:
    """Looks at a store; each method is one moment of it. Raises CannotWrite if it cannot be reached."""

    def __init__(self, run: Callable[[Callable[[Connection], Any]], Any]) -> None:
        self._run = run

    @classmethod
    def of_file(cls, path: Path) -> Reader:
        """Of a store in a file, without touching it: see ``read_store``."""
        return cls(lambda read: read_store(path, read))

    def find(self, job_id: str) -> Row | None:
        """One job."""
        found = self._run(lambda c: c.execute(FIND, {"job": job_id}).mappings().first())
        return None if found is None else row_of(found)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of ``ids`` that are jobs."""
        query = text("SELECT id FROM jobs")
        return (
            set(ids) & {str(row[0]) for row in self._run(lambda c: c.execute(query).all())} if ids else set()
        )

    def by_key(self, owner: str, key: str) -> Row | None:
        """The job that ``owner`` submitted under ``key``."""
        where = (jobs.c.owner == owner) & (jobs.c.key == key)
        found = self._run(lambda c: c.execute(select(jobs).where(where)).mappings().first())
        return None if found is None else row_of(found)

    def rows(self, *, states: Sequence[str] = (), limit: int | None = None) -> list[Row]:
        """Jobs in the order they are to be taken."""
        where = "WHERE state IN :states" if states else ""
        most = "" if limit is None else f"LIMIT {int(limit)}"
        query = text(f"SELECT * FROM jobs {where} {IN_ORDER} {most}")
        if states:
            query = query.bindparams(bindparam("states", list(states), expanding=True))
        return [row_of(found) for found in self._run(lambda c: c.execute(query).mappings().all())]

    def states(self) -> dict[str, State]:
        """Every job's state by its id, in the same order."""
        query = text(f"SELECT id, state, detail FROM jobs {IN_ORDER}")
        found = self._run(lambda c: c.execute(query).all())
        return {str(job): state_of(name, detail) for job, name, detail in found}

    def page(
        self,
        *,
        states: Sequence[str] = (),
        owner: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> Page:
        """Jobs, the newest first, older than ``after`` (a page's ``next``)."""
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(jobs.c.number < after)
        of_each = [_of(query, (state,), owner) for state in sorted(set(states))]  # none is sorted whole
        queries = of_each or [_of(query, (), owner)]
        found = self._run(lambda c: [each for one in queries for each in c.execute(one).mappings().all()])
        rows = sorted(map(row_of, found), key=lambda row: -row.number)
        return Page(rows[:limit], rows[limit - 1].number if len(rows) > limit else None)

    def counts(self, *, owner: str | None = None) -> dict[str, int]:
        """Jobs by the name of their state."""
        query = _of(select(jobs.c.state, func.count()).group_by(jobs.c.state), (), owner)
        return {str(state): int(count) for state, count in self._run(lambda c: c.execute(query).all())}

    def counts_of(self, owners: Sequence[str], states: Sequence[str]) -> dict[str, int]:
        """Jobs in one of ``states`` of each of ``owners``."""
        those = {"owners": list(owners), "states": list(states)}
        found = self._run(lambda c: c.execute(COUNTS_OF, those).all())
        return {**dict.fromkeys(owners, 0), **{str(owner): int(count) for owner, count in found}}

    def ahead(self, row: Row) -> int:
        """Queued jobs that are taken before this one."""
        place = {"priority": row.priority, "position": row.position, "job": row.id}
        return int(self._run(lambda c: c.execute(AHEAD, place).scalar_one()))

    def events(self, job_id: str, *, since: int = 0, limit: int = 1000) -> list[JobEventRow]:
        """What became of a job, later than event ``since``, the oldest first.

        Each change of state once; how far a running job is stands in its row.
        """
        query = select(events.c.number, events.c.moment, events.c.event).order_by(events.c.number)
        query = query.where(events.c.job == job_id, events.c.number > since).limit(limit)
        found = self._run(lambda c: c.execute(query).all())
        return [JobEventRow(number, moment, json.loads(event)) for number, moment, event in found]

    def cancel_requested(self) -> set[str]:
        """The ids of jobs that are to be cancelled and are not yet."""
        query = text("SELECT id FROM jobs WHERE cancel = 1")
        return {str(row[0]) for row in self._run(lambda c: c.execute(query).all())}

    def drivers(self) -> list[DriverRow]:
        """Who works on the jobs; one that fell silent is listed until another has its jobs."""
        return list(self._run(drivers_in))


def drivers_in(connection: Connection) -> list[DriverRow]:
    """Every driver's row, with its silence by the database's clock."""
    clock = "extract(epoch FROM clock_timestamp())::float8"
    if connection.dialect.name == "sqlite":
        clock = "(julianday('now') - 2440587.5) * 86400"
    columns = (
        drivers.c.number,
        drivers.c.name,
        drivers.c.since,
        text(f"{clock} - beat_at"),
        drivers.c.holder,
    )
    return [DriverRow(*found) for found in connection.execute(select(*columns))]


def entries_in(connection: Connection, since: int) -> list[Entry]:
    """Jobs that changed at or after revision ``since``, in the order they are to be taken.

    Sorted here: asked for it, SQLite walks all jobs in that order and not the few by their revision.
    """
    place = (jobs.c.id, jobs.c.priority, jobs.c.position, jobs.c.stage, jobs.c.step)
    query = select(*place, jobs.c.state, jobs.c.detail).where(jobs.c.revision >= since)
    found = [
        Entry(job, priority, position, stage, step, state_of(state, detail))
        for job, priority, position, stage, step, state, detail in connection.execute(query)
    ]
    return sorted(found, key=lambda entry: (-entry.priority, entry.position, entry.id))


def _of(query: Select[Any], states: Sequence[str], owner: str | None) -> Select[Any]:
    if states:
        query = query.where(jobs.c.state.in_(states))
    return query if owner is None else query.where(jobs.c.owner == owner)
