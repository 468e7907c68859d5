"""The one way a job's state changes: read under a lock, written with its event and its webhook."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, insert, or_, select, update

from imax_dist.events.log import as_json
from imax_dist.jobs.state import (
    OVER,
    Queued,
    Running,
    State,
    event_of,
    honour_cancel,
    interrupted,
    name_of,
    to_record,
)
from imax_dist.jobs.store.database import CHUNK, Database
from imax_dist.jobs.store.row import state_of
from imax_dist.jobs.store.tables import drivers, events, jobs, webhooks


class Found(NamedTuple):
    """A job as this transaction has locked it."""

    id: str
    state: State
    cancel: bool
    driver: int | None
    webhook: str

    @property
    def gang(self) -> str:
        return self.state.gang if isinstance(self.state, Running) else ""


def lock(connection: Connection, where: ColumnElement[bool], *, skip_locked: bool = False) -> list[Found]:
    """The jobs ``where``, held until the transaction ends; ``skip_locked`` leaves out what others hold."""
    columns = (jobs.c.id, jobs.c.state, jobs.c.detail, jobs.c.cancel, jobs.c.driver, jobs.c.webhook)
    query = select(*columns).where(where).order_by(jobs.c.id).with_for_update(skip_locked=skip_locked)
    return [
        Found(job, state_of(state, detail), bool(cancel), driver, webhook)
        for job, state, detail, cancel, driver, webhook in connection.execute(query)
    ]


def lock_ids(connection: Connection, ids: Iterable[str]) -> list[Found]:
    """The jobs ``ids``, in order of their ids; unknown ones are left out."""
    return [found for some in chunks(sorted(ids)) for found in lock(connection, jobs.c.id.in_(some))]


def write(
    connection: Connection,
    database: Database,
    moves: Sequence[tuple[Found, State]],
    *,
    driver: int | None = None,
) -> None:
    """Give locked jobs new states. Whatever was asked to be cancelled has been heard: ``honoured``."""
    if not moves:
        return
    revision, now = database.revision(connection), database.now(connection)
    change = update(jobs).where(jobs.c.id == bindparam("job"))
    values = [
        {
            "job": found.id,
            "state": name_of(state),
            "detail": json.dumps(to_record(state)),
            "changed": now,
            "cancel": 0,
            "driver": driver if isinstance(state, Running) else None,
            "revision": revision,
        }
        for found, state in moves
    ]
    connection.execute(change, values)
    noted = [
        (found, state, json.dumps(as_json(event_of(found.id, state, found.gang)))) for found, state in moves
    ]
    connection.execute(
        insert(events), [{"job": found.id, "moment": now, "event": event} for found, _, event in noted]
    )
    calls: list[dict[str, Any]] = [
        {"job": found.id, "url": found.webhook, "body": event, "created": now, "due": now}
        for found, state, event in noted
        if found.webhook and isinstance(state, OVER)
    ]
    if calls:
        connection.execute(insert(webhooks), calls)


def honoured(found: Found, state: State) -> State:
    """``state``, or Cancelled where somebody has cancelled the job in the meantime."""
    return honour_cancel(state) if found.cancel else state


def abandoned() -> ColumnElement[bool]:
    """Jobs that nobody works on although they are running, or that are still to be cancelled."""
    alive = select(drivers.c.number)
    left = (jobs.c.state == "running") & (jobs.c.driver.is_(None) | jobs.c.driver.not_in(alive))
    return or_(left, (jobs.c.cancel == 1) & (jobs.c.state != "running"))


def recover(connection: Connection, database: Database) -> None:
    """Queue again what is ``abandoned``, and cancel what was to be."""
    write(connection, database, [(f, left(f.state, f.cancel)) for f in lock(connection, abandoned())])


def left(state: State, cancelled: bool) -> State:
    """What nobody works on, as the next driver will find it."""
    state = interrupted(state) if isinstance(state, Running) else state
    return honour_cancel(state) if cancelled else state


def chunks(values: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    """``values`` in parts that one statement takes."""
    return (values[start : start + size] for start in range(0, len(values), size))


def is_queued(found: Found) -> bool:
    return isinstance(found.state, Queued)
