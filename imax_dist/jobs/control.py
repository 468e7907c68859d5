"""Operator commands on a batch, while it runs or after: status, retry, cancel, approve.

None of them takes the batch's lease; status writes nothing. What is asked for is written in one transaction a
store, and a batch that is running sees it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from imax_dist.errors import BadValue, FolderBusy
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.lease import driver_of
from imax_dist.jobs.rows import Row, read_store, rows_in, states_in, store_paths
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
    interrupted,
)
from imax_dist.jobs.store import Store


def all_rows(out: Path) -> list[Row]:
    """Every job of a folder, of all its shards. Raises MissingInput if there is no batch.

    Of a batch that was killed, what ran is queued and what was to be cancelled is: nobody works on it.
    """
    rows: list[Row] = []
    for path in store_paths(out):
        found = read_store(path, lambda database, path=path: rows_in(database, path))  # type: ignore[misc]
        rows += found if driver_of(path) is not None else [_as_left(row) for row in found]
    return rows


def damaged(out: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Finished posters by id that are not what the request of now asks for, and why: every file is read."""
    done = [row.job for row in rows if isinstance(row.state, Done)]
    found = ((job.id, JobFolder.of(out, job.id).difference(job.fingerprint, read_all=True)) for job in done)
    return {job_id: problem for job_id, problem in found if problem}


def cancel(out: Path, ids: Sequence[str]) -> list[str]:
    """Cancel queued, running and proofed jobs; the ids that are or will be cancelled.

    It is kept in the store until a change of the job's state carries it out, whatever happens to the
    batch in between. A running batch stops the job after its step. Raises BadValue for an unknown id.
    """
    cancelled: list[str] = []
    for path, states in _picked(out, ids):
        chosen = {job: s for job, s in states.items() if not isinstance(s, Done | Failed | Cancelled)}
        if not chosen:
            continue
        with closing(Store(path)) as store:
            store.cancel(chosen, at_once=driver_of(path) is None)
        cancelled += chosen
    return cancelled


def retry(out: Path, ids: Sequence[str]) -> list[str]:
    """Queue failed and cancelled jobs (all of them if ``ids`` is empty) for the next ``imax batch``."""
    return _move(out, ids, _retried)


def approve(out: Path, ids: Sequence[str]) -> list[str]:
    """Queue proofed jobs (all of them if ``ids`` is empty); their posters are made from the proofs."""
    return _move(out, ids, _approved)


def _retried(state: State) -> Queued | None:
    if not isinstance(state, Failed | Cancelled):
        return None
    return Queued(attempts=attempts_of(state), proofed=state.proofed)


def _approved(state: State) -> Queued | None:
    return Queued(attempts=attempts_of(state), proofed=True) if isinstance(state, Proofed) else None


def _move(out: Path, ids: Sequence[str], to: Callable[[State], Queued | None]) -> list[str]:
    """All or nothing a store; nothing anywhere if a batch is running."""
    picked = [
        (path, {job: new for job, state in states.items() if (new := to(state)) is not None})
        for path, states in _picked(out, ids)
    ]
    for path, moves in picked:
        if moves and (driver := driver_of(path)) is not None:
            raise FolderBusy(f"{out} is being filled by {driver}; do this when it has ended")
    for path, moves in picked:
        if moves:
            with closing(Store(path)) as store:
                store.change(moves)
    return [job for _, moves in picked for job in moves]


def _picked(out: Path, ids: Sequence[str]) -> list[tuple[Path, dict[str, State]]]:
    """The states of the jobs ``ids`` (all if empty) by store; BadValue before anything is changed."""
    wanted = set(ids)
    found = [(path, dict(_effective(path))) for path in store_paths(out)]
    missing = wanted.difference(*(states for _, states in found))
    if missing:
        raise BadValue(f"{out} has no poster {', '.join(sorted(missing))}; see imax status {out}")
    return [
        (path, {job: s for job, s in states.items() if not ids or job in wanted}) for path, states in found
    ]


def _effective(path: Path) -> Iterator[tuple[str, State]]:
    """States as ``all_rows`` shows them."""
    running = driver_of(path) is not None
    states, cancelled = read_store(
        path,
        lambda database: (
            states_in(database),
            {row[0] for row in database.execute("SELECT id FROM jobs WHERE cancel = 1")},
        ),
    )
    for job, state in states.items():
        yield job, state if running else _left(state, job in cancelled)


def _as_left(row: Row) -> Row:
    return row._replace(state=_left(row.state, row.cancelling), cancelling=False)


def _left(state: State, cancelled: bool) -> State:
    """What nobody works on, as the next batch will find it."""
    state = interrupted(state) if isinstance(state, Running) else state
    return honour_cancel(state) if cancelled else state
