"""Clients' own names of submissions: the same name and request is the same job, anything else a conflict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select, tuple_

from imax_dist.errors import BadValue
from imax_dist.jobs.job import Job
from imax_dist.jobs.state import Queued
from imax_dist.jobs.store.changes import chunks
from imax_dist.jobs.store.row import Row, row_of
from imax_dist.jobs.store.tables import jobs

BY_KEY = select(jobs).where(tuple_(jobs.c.owner, jobs.c.key).in_(bindparam("names", expanding=True)))
Name = tuple[str, str | None]
"""Owner and key."""


class KeyConflict(BadValue):
    """The client's key names an earlier submission of another request."""


@dataclass(frozen=True)
class Lot:
    """What came together: the client's key of all of it, and how many jobs it has."""

    key: str
    jobs: int = 1

    def key_of(self, number: int) -> str:
        """One job's: the key itself where it is alone, or else with its number behind it."""
        return self.key if self.jobs == 1 else f"{self.key}/{number}"

    @property
    def others(self) -> tuple[str, ...]:
        """Keys that a longer, a shorter or a single submission under the same key has."""
        return (f"{self.key}/0",) if self.jobs == 1 else (self.key, f"{self.key}/{self.jobs}")


@dataclass(frozen=True)
class Submission:
    """A job, whose it is, and where its end is to be told."""

    job: Job
    owner: str = ""
    key: str | None = None
    """The client's own name: the same key and request again is the same job."""
    webhook: str = ""
    """A URL that the caller has found allowed."""
    state: Queued = field(default_factory=Queued)
    """How it waits: with an approval of its proof, or without."""
    lot: Lot | None = None
    """What it came with, where its key is made from that one's."""


def rows_by_key(connection: Connection, submissions: Sequence[Submission]) -> dict[Name, Row]:
    """The jobs that have a key of these submissions already, or of others under the same one."""
    names = {(each.owner, each.key) for each in submissions if each.key is not None}
    lots = {(each.owner, each.lot) for each in submissions if each.lot is not None}
    names |= {(owner, key) for owner, lot in lots for key in (lot.key_of(0), *lot.others)}
    found: dict[Name, Row] = {}
    for some in chunks(sorted(names)):
        for row in map(row_of, connection.execute(BY_KEY, {"names": some}).mappings()):
            found[row.owner, row.key] = row
    return found


def require_same(submissions: Iterable[Submission], known: Mapping[Name, Row]) -> list[Submission]:
    """Those of the submissions that are new. Raises KeyConflict for a key of another request."""
    fresh: list[Submission] = []
    first: dict[Name, Submission] = {}
    lots: dict[Name, Lot] = {}
    for each in submissions:
        name = (each.owner, each.key)
        row, before = known.get(name), None if each.key is None else first.get(name)
        first[name] = before or each
        lot = each.lot and lots.setdefault((each.owner, each.lot.key), each.lot)
        same = before is None or _asked(before) == _asked(each)
        if not same or lot != each.lot or _another_lot(each, known) or (row and not _is_of(row, each)):
            asked = each.lot.key if each.lot else each.key
            raise KeyConflict(f"key {asked!r} was used for another request; choose another key")
        if row is None and before is None:
            fresh.append(each)
    return fresh


def _asked(each: Submission) -> tuple[object, ...]:
    return each.job.fingerprint, each.job.priority, each.webhook, each.state.approval


def _is_of(row: Row, each: Submission) -> bool:
    approval = each.state.approval if row.approval is None else row.approval
    return (row.fingerprint, row.priority, row.webhook, approval) == _asked(each)


def _another_lot(each: Submission, known: Mapping[Name, Row]) -> bool:
    """Whether its lot's key names a submission of another number of jobs."""
    lot, is_new = each.lot, (each.owner, each.key) not in known
    if lot is None or (lot.jobs == 1 and not is_new):
        return False
    others = lot.others if lot.jobs == 1 or not is_new else (*lot.others, lot.key_of(0))
    return any((each.owner, key) in known for key in others)
