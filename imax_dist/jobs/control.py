"""What people ask of a batch from outside while it runs or after: look, retry, cancel, approve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imax_dist.errors import BadValue, FolderBusy
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.lock import hold, lock_path
from imax_dist.jobs.state import (
    Cancelled,
    Done,
    Failed,
    Proofed,
    Queued,
    Running,
    State,
    attempts_of,
    interrupted,
)
from imax_dist.jobs.store import Row, Store, store_paths, who


def all_rows(out: Path) -> list[Row]:
    """Every job of a folder, of all its shards. Raises MissingInput if there is no batch.

    What a batch that was killed left as running is queued: nobody works on it.
    """
    rows: list[Row] = []
    for path in store_paths(out):
        with _opened(path) as store:
            found = store.rows()
        stale = any(isinstance(row.state, Running) for row in found) and not _busy(path)
        rows += [_as_left(row) for row in found] if stale else found
    return rows


def damaged(out: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Finished posters by id that are not what the request of now asks for, and why: every file is read."""
    done = [row.job for row in rows if isinstance(row.state, Done)]
    found = ((job.id, JobFolder.of(out, job.id).difference(job.fingerprint, read_all=True)) for job in done)
    return {job_id: problem for job_id, problem in found if problem}


def cancel(out: Path, ids: Sequence[str]) -> list[str]:
    """Cancel queued, running and proofed jobs; the ids that are or will be cancelled.

    A running batch is told through the store and stops them after their step. Raises BadValue for an
    unknown id.
    """
    told = []
    for store, row in _picked(out, ids):
        if isinstance(row.state, Done | Failed | Cancelled):
            continue
        told.append(row.job.id)
        if _busy(store.path):
            store.ask_cancel(row.job.id)
        else:
            store.move(row.job.id, Cancelled(attempts_of(row.state)))
    return told


def retry(out: Path, ids: Sequence[str]) -> list[str]:
    """Queue failed and cancelled jobs (all of them if ``ids`` is empty) for the next ``imax batch``."""
    return _move(out, ids, (Failed, Cancelled), lambda state: Queued(attempts=attempts_of(state)))


def approve(out: Path, ids: Sequence[str]) -> list[str]:
    """Queue proofed jobs (all of them if ``ids`` is empty); their posters are made from the proofs."""
    return _move(out, ids, (Proofed,), lambda state: Queued(attempts=attempts_of(state), proofed=True))


def _move(
    out: Path,
    ids: Sequence[str],
    from_states: tuple[type[State], ...],
    to: Callable[[State], Queued],
) -> list[str]:
    moved = []
    for store, row in _picked(out, ids):
        if isinstance(row.state, from_states):
            _require_idle(store.path)
            store.move(row.job.id, to(row.state))
            moved.append(row.job.id)
    return moved


def _picked(out: Path, ids: Sequence[str]) -> Iterator[tuple[Store, Row]]:
    missing = set(ids)
    for path in store_paths(out):
        with _opened(path) as store:
            for row in store.rows():
                if not ids or row.job.id in ids:
                    missing.discard(row.job.id)
                    yield store, row
    if missing:
        raise BadValue(f"{out} has no poster {', '.join(sorted(missing))}; see imax status {out}")


def _as_left(row: Row) -> Row:
    return row._replace(state=interrupted(row.state)) if isinstance(row.state, Running) else row


def _require_idle(path: Path) -> None:
    if _busy(path):
        raise FolderBusy(f"a batch is running in {path.parent}; do this when it has ended")


def _busy(path: Path) -> bool:
    try:
        with hold(lock_path(path), who()):
            return False
    except FolderBusy:
        return True


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    store = Store(path)
    try:
        yield store
    finally:
        store.close()
