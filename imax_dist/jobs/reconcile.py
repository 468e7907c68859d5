"""A manifest meets what is already there: only what is missing or changed is queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from imax_dist.errors import BadManifest
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.rows import Row
from imax_dist.jobs.state import Done, Failed, Queued, State, done_state
from imax_dist.jobs.store import Store
from imax_dist.pipeline.checkpoint import CheckpointFolder


def add_jobs(store: Store, jobs: Sequence[Job], out: Path) -> None:
    """Bring the store in line with ``jobs`` and with the finished posters in ``out``.

    What was cancelled before is carried out first. New and changed jobs are queued, and failed ones that are
    worth another try. A permanent failure stays
    failed and a cancelled job cancelled: ``imax retry`` queues them. Other jobs of the store are kept.
    """
    store.recover()
    known = {row.job.id: row for row in store.rows()}
    _refuse_case_twins(jobs, known)
    states = {job.id: state_of(job, known.get(job.id), JobFolder.of(out, job.id)) for job in jobs}
    fresh = [(job, states[job.id]) for job in jobs if _differs(job, known.get(job.id), states[job.id])]
    store.add(fresh)
    store.reorder(jobs)


def _refuse_case_twins(jobs: Sequence[Job], known: Mapping[str, Row]) -> None:
    """Raise BadManifest for an id that is another's of this folder but for case."""
    folded = {name.casefold(): name for name in known}
    for job in jobs:
        if job.id not in known and job.id.casefold() in folded:
            other = folded[job.id.casefold()]
            raise BadManifest(f"id {job.id!r} differs from {other!r} of this folder by case alone; rename it")


def state_of(job: Job, row: Row | None, folder: JobFolder) -> State:
    """The state a run begins with."""
    record = folder.finished(job.fingerprint)
    if record is not None:
        CheckpointFolder(folder.checkpoints).remove()
        if row is not None and isinstance(row.state, Done):
            return row.state
        return done_state(record, attempts=1 if row is None else row.attempts)
    if row is None or row.job.fingerprint != job.fingerprint:
        return Queued()
    if isinstance(row.state, Done):
        return Queued(proofed=True, after=folder.difference(job.fingerprint))
    if isinstance(row.state, Failed) and row.state.retryable:
        return Queued(
            attempts=row.state.attempts,
            proofed=row.state.proofed,
            after=f"{row.state.kind}: {row.state.message}",
        )
    return row.state


def _differs(job: Job, row: Row | None, state: State) -> bool:
    return row is None or row.job.fingerprint != job.fingerprint or row.state != state
