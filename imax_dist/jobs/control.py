"""Operator commands on a batch, while it runs or after: status, retry, cancel, approve.

None of them takes the batch's lease; status writes nothing. What is asked for is written in one transaction
a store, and a batch that is running sees it there. A batch is a folder with its stores, or a database by its
URL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from imax_dist.errors import BadValue
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.lease import driver_of
from imax_dist.jobs.state import Done
from imax_dist.jobs.store import Queue, Reader, Row, open_store
from imax_dist.jobs.store.changes import left
from imax_dist.jobs.store.files import store_paths
from imax_dist.jobs.store.store import is_url

Place = Path | str
"""A folder of posters, the file of a store, or the URL of a database."""


def all_rows(place: Place, *, states: Sequence[str] = (), limit: int | None = None) -> list[Row]:
    """Every job of a batch, of all its shards, or those in ``states``; at most ``limit`` of each store.

    Of a batch that was killed, what ran is queued and what was to be cancelled is: nobody works on it.
    Raises MissingInput if there is no batch.
    """
    wanted = (*states, "running") if states else ()
    found = [
        _shown(reader, row, path)
        for reader, path in _readers(place)
        for row in reader.rows(states=wanted, limit=limit)
    ]
    return [row for row in found if not states or row.state_name in states]


def counts(place: Place) -> dict[str, int]:
    """Jobs by the name of their state, as ``all_rows`` shows them."""
    total: Counter[str] = Counter()
    for reader, path in _readers(place):
        total.update(reader.counts())
        for row in reader.rows(states=("running",)):
            total["running"] -= 1
            total[_shown(reader, row, path).state_name] += 1
    return {name: count for name, count in sorted(total.items()) if count}


def damaged(out: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Finished posters by id that are not what the request of now asks for, and why: every file is read."""
    done = [row for row in rows if isinstance(row.state, Done)]
    found = ((row.id, JobFolder.of(out, row.id).difference(row.fingerprint, read_all=True)) for row in done)
    return {job_id: problem for job_id, problem in found if problem}


def cancel(place: Place, ids: Sequence[str]) -> list[str]:
    """Cancel queued, running and proofed jobs; the ids that are or will be cancelled.

    It is kept in the store until a change of the job's state carries it out, whatever happens to the
    batch in between. A running batch stops the job after its step. Raises BadValue for an unknown id.
    """
    return _each(place, ids, lambda queue: queue.cancel(ids))


def retry(place: Place, ids: Sequence[str]) -> list[str]:
    """Queue failed and cancelled jobs (all if ``ids`` is empty) for the batch that runs, or the next."""
    return _each(place, ids, lambda queue: queue.retry(ids or None))


def approve(place: Place, ids: Sequence[str]) -> list[str]:
    """Queue proofed jobs (all of them if ``ids`` is empty); their posters are made from the proofs."""
    return _each(place, ids, lambda queue: queue.approve(ids or None))


def _each(place: Place, ids: Sequence[str], act: Callable[[Queue], list[str]]) -> list[str]:
    """Act on every store of the batch; BadValue for an unknown id before anything is changed."""
    missing = set(ids).difference(*(reader.known(ids) for reader, _ in _readers(place)))
    if missing:
        raise BadValue(f"{place} has no poster {', '.join(sorted(missing))}; imax status lists them")
    done = []
    for path in [place] if is_url(place) else _files(Path(place)):
        with closing(open_store(path)) as store:
            if isinstance(path, Path) and driver_of(path) is None:
                store.recover()  # what a killed batch left
            done += act(store)
    return done


def _readers(place: Place) -> Iterator[tuple[Reader, Path | None]]:
    if is_url(place):
        with closing(open_store(place)) as store:
            yield store, None
        return
    for path in _files(Path(place)):
        yield Reader.of_file(path), path


def _files(place: Path) -> list[Path]:
    """A store given as such, or those of a folder."""
    return [place] if place.is_file() else store_paths(place)


def _shown(reader: Reader, row: Row, path: Path | None) -> Row:
    if row.state_name != "running" and not row.cancelling:
        return row
    if path is not None:
        alive = driver_of(path) is not None
    else:
        alive = row.driver in {driver.number for driver in reader.drivers() if driver.alive}
    return row if alive else replace(row, state=left(row.state, row.cancelling), cancelling=False)
