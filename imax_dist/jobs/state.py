"""The states of a job. Each carries what is true of it then, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias, assert_never

from imax_dist.config import choice
from imax_dist.events import JobCancelled, JobDone, JobFailed, JobProofed, JobQueued, JobStarted
from imax_dist.events.batch import JobEvent
from imax_dist.settings_mapping import from_mapping, to_mapping


@dataclass(frozen=True)
class Queued:
    """Waits for a gang, until ``not_before`` (of the driver's clock) at least."""

    not_before: float = 0.0
    attempts: int = 0
    """Times a gang has begun with it."""
    attempts_without_progress: int = 0
    """Attempts since the last one that got further."""
    hangs: int = 0
    """Times it was taken for hung; each doubles the deadlines."""
    ranks: int | None = None
    """Wants a gang of this many ranks (it ran out of memory on fewer)."""
    proofed: bool = False
    """The native image is made and, where that was asked for, approved."""
    approval: bool = False
    """Its proof waits for a person before the poster is made."""
    after: str = ""
    """Why the last attempt ended, if there was one."""


@dataclass(frozen=True)
class Running:
    """A gang has it."""

    gang: str
    since: float
    before: Queued
    """What it goes back to if the gang is lost."""


@dataclass(frozen=True)
class Proofed:
    """The native image is made and waits for ``imax approve``."""

    attempts: int = 0


@dataclass(frozen=True)
class Done:
    """The poster is on disk."""

    sha256: str
    bytes: int
    seconds: float
    attempts: int
    delivered: str = ""
    """The object store's place of its files, where they were sent to one."""


@dataclass(frozen=True)
class Failed:
    """Given up; ``kind`` is the class of failure (see policy), ``message`` the sentence."""

    kind: str
    message: str
    attempts: int
    retryable: bool = False
    proofed: bool = False
    """As Queued's: another try needs no other approval."""
    approval: bool = False


@dataclass(frozen=True)
class Cancelled:
    """Someone asked for it not to be made."""

    attempts: int = 0
    proofed: bool = False
    approval: bool = False


State: TypeAlias = Queued | Running | Proofed | Done | Failed | Cancelled

STATES: dict[str, type[State]] = {
    "queued": Queued,
    "running": Running,
    "proofed": Proofed,
    "done": Done,
    "failed": Failed,
    "cancelled": Cancelled,
}
OVER = (Done, Failed, Cancelled, Proofed)
"""States a batch run ends with."""


def name_of(state: State) -> str:
    """``queued``, ``running``, ..."""
    return type(state).__name__.lower()


def to_record(state: State) -> dict[str, Any]:
    """The state's data as plain JSON values."""
    record: dict[str, Any] = to_mapping(state)
    return record


def from_record(name: str, record: dict[str, Any]) -> State:
    """The inverse of ``name_of`` and ``to_record``. Raises BadConfig for a record of another version."""
    cls: type[State] = choice("state", name, STATES)
    state: State = from_mapping(cls, record, where=f"state {name}")
    return state


def event_of(job: str, state: State, gang: str) -> JobEvent:
    """What is reported of a job that comes to ``state`` on ``gang``."""
    match state:
        case Queued():
            return JobQueued(job, gang, state.after, state.attempts)
        case Running():
            return JobStarted(job, gang, state.before.attempts + 1)
        case Proofed():
            return JobProofed(job, gang, state.attempts)
        case Done():
            return JobDone(
                job, gang, state.sha256, state.bytes, seconds=state.seconds, attempts=state.attempts
            )
        case Failed():
            failed = JobFailed(job, state.message, gang, state.kind, attempts=state.attempts)
            return replace(failed, retryable=state.retryable)
        case Cancelled():
            return JobCancelled(job, gang, state.attempts)
        case _:
            assert_never(state)


def attempts_of(state: State) -> int:
    """Times a gang has begun with it."""
    return state.before.attempts + 1 if isinstance(state, Running) else state.attempts


def interrupted(state: Running) -> Queued:
    """What a running job goes back to when the run that had it ends."""
    before = state.before
    return Queued(
        attempts=before.attempts + 1,
        attempts_without_progress=before.attempts_without_progress,
        hangs=before.hangs,
        ranks=before.ranks,
        proofed=before.proofed,
        approval=before.approval,
        after="the batch was interrupted",
    )


def honour_cancel(state: State) -> State:
    """What a state becomes that a job comes into after somebody has cancelled it; a finished poster stays."""
    if isinstance(state, Done | Cancelled):
        return state
    before = state.before if isinstance(state, Running) else state
    if isinstance(before, Proofed):
        return Cancelled(before.attempts, approval=True)
    return Cancelled(attempts_of(state), before.proofed, before.approval)


def done_state(record: dict[str, Any], *, attempts: int) -> Done:
    """What a poster's DONE file says, as a state."""
    return Done(
        sha256=str(record.get("pixels_sha256", "")),
        bytes=int(record.get("bytes", 0)),
        seconds=float(record.get("seconds", 0.0)),
        attempts=attempts,
        delivered=str(record.get("delivered", "")),
    )
