"""What a driver does with a store besides: add the jobs of a manifest, take jobs, say what became of them.

A driver that was replaced by another finds its row in ``drivers`` gone, in the very transaction that would
write, and writes no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Insert, bindparam, delete, insert, select, update

from imax_dist.errors import BadValue, FolderBusy
from imax_dist.jobs.job import Job
from imax_dist.jobs.state import Queued, Running, State
from imax_dist.jobs.store import changes
from imax_dist.jobs.store.changes import Found, chunks
from imax_dist.jobs.store.database import Database, insert_new, upsert
from imax_dist.jobs.store.queue import Queue, job_values
from imax_dist.jobs.store.reader import Entry, entries_in
from imax_dist.jobs.store.row import Row, row_of
from imax_dist.jobs.store.sqlite import Sqlite
from imax_dist.jobs.store.tables import drivers, events, jobs, webhooks

KEPT = {"number", "created", "owner", "key", "webhook"}
"""Of a job that is put in again with another request."""
POSTGRES = ("postgresql://", "postgres://")


def free() -> None:
    """The guard of a store that needs none."""


class Store(Queue):
    """Jobs by id. Every method is one transaction; ``guard`` is called before each one commits."""

    def __init__(
        self, place: Path | Database, *, guard: Callable[[], None] = free, vfs: str | None = None
    ) -> None:
        super().__init__(Sqlite(place, vfs=vfs) if isinstance(place, Path) else place)
        self.name = self.database.name
        self._guard = guard
        self._driver: int | None = None

    @property
    def path(self) -> Path:
        """The file of a store that is one."""
        assert isinstance(self.database, Sqlite)
        return self.database.path

    @property
    def shared(self) -> bool:
        """Whether SQLite has shared memory for its log; true of PostgreSQL."""
        return self.database.shared_memory

    def check(self) -> None:
        """Call the guard, and see that no other driver has taken the store over."""
        with self.database.reading() as connection:
            self._require_driver(connection)
        self._guard()

    def fence(self, name: str = "") -> None:
        """Become the only driver: an earlier one's next commit raises FolderBusy."""
        with self.transaction() as connection:
            connection.execute(delete(drivers))
            self._join(connection, name)

    def join(self, name: str, holder: str = "") -> int:
        """Become one of several drivers; the number it has. ``holder`` is its process, as JSON."""
        with self.transaction() as connection:
            return self._join(connection, name, holder)

    def leave(self) -> None:
        """Be no driver any more; what it still has is queued again."""
        number, self._driver = self._driver, None
        if number is not None:
            self.dismiss(number)

    def beat(self) -> dict[int, int]:
        """A sign of life; how many each driver has given, by number."""
        with self.transaction() as connection:
            mine = update(drivers).where(drivers.c.number == self._driver)
            now = self.database.now(connection)
            connection.execute(mine.values(beats=drivers.c.beats + 1, beat_at=now))
            found = connection.execute(select(drivers.c.number, drivers.c.beats))
            return {number: beats for number, beats in found}

    def dismiss(self, number: int) -> None:
        """Another driver is gone, or this one leaves: its jobs are queued again, and it is fenced off."""
        with self.database.writing() as connection:
            connection.execute(delete(drivers).where(drivers.c.number == number))
            changes.recover(connection, self.database)

    def add(self, new: Iterable[tuple[Job, State]], *, seen: Mapping[str, int] | None = None) -> None:
        """Put jobs in, or in again with another request; a cancellation of the old one is over.

        ``seen`` are the revisions of the jobs that were there when the caller looked: what another driver
        has put in or changed since stays as it is.
        """
        new = list(new)
        if not new:
            return
        with self.transaction() as connection:
            if seen is None:
                self._put(connection, new, upsert(connection, jobs, KEPT))
                return
            now = _revisions(connection, [job.id for job, _ in new])
            fresh = [(job, state) for job, state in new if job.id not in seen and job.id not in now]
            same = [(job, state) for job, state in new if job.id in seen and now.get(job.id) == seen[job.id]]
            self._put(connection, fresh, insert_new(connection, jobs))
            self._put(connection, same, upsert(connection, jobs, KEPT))

    def _put(self, connection: Connection, new: Sequence[tuple[Job, State]], how: Insert) -> None:
        if not new:
            return
        revision, now = self.database.revision(connection), self.database.now(connection)
        first = self.database.number(connection, len(new))
        values = [
            {**job_values(job, state, now), "revision": revision, "number": first + index}
            for index, (job, state) in enumerate(new)
        ]
        connection.execute(how, values)

    def reorder(self, given: Iterable[Job]) -> None:
        """The manifest's order and priorities, which may change without a poster changing."""
        values = [{"job": job.id, "at": job.position, "rank": job.priority} for job in given]
        same = (jobs.c.position == bindparam("at")) & (jobs.c.priority == bindparam("rank"))
        change = update(jobs).where(jobs.c.id == bindparam("job"), ~same)
        with self.transaction() as connection:
            if values:
                revision = self.database.revision(connection)
                moved = {"position": bindparam("at"), "priority": bindparam("rank"), "revision": revision}
                connection.execute(change.values(**moved), values)

    def claim(self, ids: Sequence[str], gang: str, *, most: int = 1) -> dict[str, Running]:
        """Take up to ``most`` of the jobs ``ids``, in that order, that are queued and nobody else has."""
        free_ones = jobs.c.id.in_(ids) & (jobs.c.state == "queued") & (jobs.c.cancel == 0)
        with self.transaction() as connection:
            found = {f.id: f for f in changes.lock(connection, free_ones, skip_locked=True)}
            taken = [found[job] for job in ids if job in found][:most]
            now = self.database.now(connection)
            moves = [(f, Running(gang, now, f.state)) for f in taken if isinstance(f.state, Queued)]
            changes.write(connection, self.database, moves, driver=self._driver)
        return {found.id: state for found, state in moves}

    def move(self, job_id: str, state: State) -> State:
        """The job is in ``state`` from now on, or Cancelled where somebody has cancelled it: returned."""
        return self.move_all({job_id: state})[job_id]

    def move_all(self, states: Mapping[str, State]) -> dict[str, State]:
        """The same for many jobs, in one transaction; a job that is no longer this driver's stays as it is.

        Whether one was cancelled is looked up in the transaction that changes its state, so that no change
        of state, at whatever moment, forgets it.
        """
        with self.transaction() as connection:
            found = changes.lock_ids(connection, states)
            mine = [f for f in found if self._has(f)]
            moves = [(f, changes.honoured(f, states[f.id])) for f in mine]
            changes.write(connection, self.database, moves, driver=self._driver)
        return {**states, **{f.id: f.state for f in found}, **{f.id: state for f, state in moves}}

    def recover(self) -> None:
        """What an earlier driver left running is queued again, and what was cancelled is: one transaction."""
        with self.transaction() as connection:
            changes.recover(connection, self.database)

    def progress(self, job_id: str, stage: str, step: int, steps: int) -> None:
        """How far a running job is."""
        change = update(jobs).where(jobs.c.id == job_id).values(stage=stage, step=step, steps=steps)
        with self.transaction() as connection:
            connection.execute(change)

    def changes(self, since: int) -> tuple[int, list[Entry]]:
        """Jobs whose state changed at or after revision ``since``, and what to ask with next time.

        A change may be told twice, none is left out. Since 0: every job.
        """
        with self.database.reading() as connection:
            return self.database.horizon(connection), entries_in(connection, since)

    def jobs(self, ids: Sequence[str]) -> dict[str, Job]:
        """Requests of jobs, by their ids."""
        rows: dict[str, Job] = {}
        with self.database.reading() as connection:
            for some in chunks(ids):
                found = connection.execute(select(jobs).where(jobs.c.id.in_(some))).mappings()
                rows |= {row.id: row.job for row in map(row_of, found)}
        return rows

    def over_since(self, seconds: float, *, states: Sequence[str]) -> list[Row]:
        """Jobs that came into one of ``states`` longer ago than that."""
        with self.database.reading() as connection:
            then = self.database.now(connection) - seconds
            query = select(jobs).where(jobs.c.state.in_(states), jobs.c.changed < then)
            return [row_of(found) for found in connection.execute(query).mappings()]

    def forget(self, rows: Sequence[Row]) -> int:
        """Take jobs out that are still as ``rows`` say, with their events and calls; how many."""
        with self.transaction() as connection:
            gone = 0
            for row in rows:
                this = (jobs.c.id == row.id) & (jobs.c.changed == row.changed)
                removed = connection.execute(delete(jobs).where(this)).rowcount
                if removed:
                    connection.execute(delete(events).where(events.c.job == row.id))
                    connection.execute(delete(webhooks).where(webhooks.c.job == row.id))
                gone += removed
        return gone

    def forget_events(self, seconds: float) -> int:
        """Take events out that are older than that; how many."""
        with self.transaction() as connection:
            then = self.database.now(connection) - seconds
            return int(connection.execute(delete(events).where(events.c.moment < then)).rowcount)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing. Raises CannotWrite, and what the guard raises; FolderBusy if replaced."""
        with self.database.writing() as connection:
            self._require_driver(connection)
            yield connection
            self._guard()

    def _has(self, found: Found) -> bool:
        mine = found.driver == self._driver
        return self._driver is None or mine or changes.is_queued(found)

    def _join(self, connection: Connection, name: str, holder: str = "") -> int:
        now = self.database.now(connection)
        made = (
            insert(drivers)
            .values(name=name, holder=holder, since=now, beat_at=now)
            .returning(drivers.c.number)
        )
        self._driver = int(connection.execute(made).scalar_one())
        return self._driver

    def _require_driver(self, connection: Connection) -> None:
        if self._driver is None:
            return
        mine = select(drivers.c.number).where(drivers.c.number == self._driver)
        if connection.execute(mine.with_for_update(read=True, key_share=True)).first() is None:
            raise FolderBusy(f"{self.name} was taken over by another batch; this one ends")


def _revisions(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Of the jobs that are there, which are held until the transaction ends."""
    found: dict[str, int] = {}
    for some in chunks(sorted(ids)):
        query = select(jobs.c.id, jobs.c.revision).where(jobs.c.id.in_(some)).order_by(jobs.c.id)
        found.update((job, revision) for job, revision in connection.execute(query.with_for_update()))
    return found


def open_store(place: str | Path, *, guard: Callable[[], None] = free) -> Store:
    """The store at ``place``: a file, or a database by its URL. Raises CannotWrite, BadManifest."""
    if is_url(place):
        from imax_dist.jobs.store.postgres import Postgres

        return Store(Postgres(str(place)), guard=guard)
    return Store(Path(place), guard=guard)


def is_url(place: str | Path) -> bool:
    """Whether ``place`` is a database on a server, and not a file. Raises BadValue for another URL."""
    text = str(place)
    if text.startswith(POSTGRES):
        return True
    if "://" in text:
        kind = text.partition("://")[0]
        raise BadValue(
            f"--store {kind}://... is not a supported queue; give postgresql://USER@HOST/DATABASE, or a file"
        )
    return False
