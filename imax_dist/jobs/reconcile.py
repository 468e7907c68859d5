"""A manifest meets what is already there: only what is missing or changed is queued."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from imax_dist.errors import BadManifest
from imax_dist.jobs.deliver import delivered
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.state import Done, Failed, Queued, State, done_state
from imax_dist.jobs.store import Row, Store
from imax_dist.output.own_files import folded
from imax_dist.pipeline.checkpoint import CheckpointFolder


def add_jobs(store: Store, jobs: Sequence[Job], out: Path, *, deliver: str = "") -> None:
    """Bring the store in line with ``jobs`` and with the finished posters in ``out``, sent to ``deliver``.

    What was cancelled before is carried out first. New and changed jobs are queued, and failed ones that are
    worth another try. A permanent failure stays failed and a cancelled job cancelled: ``imax retry`` queues
    them. What another driver is working on, and other jobs of the store, are kept.
    """
    store.recover()
    known = {row.id: row for row in store.rows()}
    _refuse_case_twins(jobs, known)
    folders = {entry.name for entry in os.scandir(out)} if out.is_dir() else set()
    fresh = []
    for job in jobs:
        row = known.get(job.id)
        if row is not None and row.state_name == "running":
            continue
        state = _now(job, row, JobFolder.of(out, job.id), deliver) if job.id in folders or row else Queued()
        if _differs(job, row, state):
            fresh.append((job, state))
    store.add(fresh, seen={row.id: row.revision for row in known.values()})
    store.reorder([job for job in jobs if _moved(job, known.get(job.id))])


def _refuse_case_twins(jobs: Sequence[Job], known: Mapping[str, Row]) -> None:
    """Raise BadManifest for an id that is another's of this folder but for case."""
    taken = {folded(name): name for name in known}
    for job in jobs:
        if job.id not in known and folded(job.id) in taken:
            other = taken[folded(job.id)]
            raise BadManifest(f"id {job.id!r} differs from {other!r} of this folder by case alone; rename it")


def _now(job: Job, row: Row | None, folder: JobFolder, deliver: str) -> State:
    """A poster that is to be delivered is done when it was; then its own folder may be elsewhere, or gone."""
    if not deliver:
        return state_of(job, row, folder)
    place = f"{deliver.rstrip('/')}/{job.id}"
    known = row.state if row is not None and row.fingerprint == job.fingerprint else None
    if isinstance(known, Done) and known.delivered == place:
        return known
    state = state_of(job, row, folder)
    if not isinstance(state, Done):
        return state
    sent = delivered(folder.path, deliver, job.fingerprint)
    return replace(state, delivered=sent) if sent else Queued(proofed=True, after="not delivered yet")


def state_of(job: Job, row: Row | None, folder: JobFolder) -> State:
    """The state a run begins with."""
    record = folder.finished(job.fingerprint)
    if record is not None:
        CheckpointFolder(folder.checkpoints).remove()
        if row is not None and isinstance(row.state, Done):
            return row.state
        return done_state(record, attempts=1 if row is None else row.attempts)
    if row is None or row.fingerprint != job.fingerprint:
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
    return row is None or row.fingerprint != job.fingerprint or row.state != state


def _moved(job: Job, row: Row | None) -> bool:
    return row is not None and (row.position, row.priority) != (job.position, job.priority)
