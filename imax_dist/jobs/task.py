"""What goes to a gang, what comes back, and the gang as the pool sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from imax_dist.events import InJob
from imax_dist.pipeline.request import Request

Work = Literal["poster", "proof", "delivery"]
"""A delivery is of a poster that was finished by an earlier attempt."""
LossKind = Literal["died", "hung", "crashed", "out_of_memory", "drained"]


@dataclass(frozen=True)
class Task:
    """One poster or one proof, once. ``folder`` is the job's folder as the ranks see it."""

    job_id: str
    fingerprint: str
    request: Request
    folder: str
    work: Work = "poster"
    attempt: int = 1
    checkpoint_every: int = 5
    preview_every: int = 0
    small_proof: bool = False
    passes_ahead: int = 0
    """Passes that the rank of a proof makes alone, the native one first; 0: only a proof is wanted."""
    deliver: str = ""
    """Where the finished poster is sent before the task ends; empty: nowhere."""
    checkpoints: str = ""
    """The folder of this job's checkpoints; empty: in its own."""
    hangs: int = 0
    """Attempts that hung; each doubles what the next one is allowed."""


@dataclass(frozen=True)
class Finished:
    """The file is on disk; ``facts`` say which."""

    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopped:
    """Stopped because it was asked to, after a checkpoint."""


@dataclass(frozen=True)
class Refused:
    """An error that the gang survives: a class of imax_dist.errors and its sentence."""

    error: str
    message: str
    retryable: bool


@dataclass(frozen=True)
class Lost:
    """The gang cannot be used any more."""

    kind: LossKind
    message: str


Outcome = Finished | Stopped | Refused | Lost


class Report(NamedTuple):
    """News of a gang: events in order, and the tasks that ended, by job id.

    ``lost`` ends all tasks that have not ended, and the gang. ``moved``: jobs in which something went on.
    """

    events: list[InJob]
    ended: dict[str, Outcome]
    lost: Lost | None = None
    moved: frozenset[str] = frozenset()


class Gang(Protocol):
    """Ranks that render one poster together, or a proof each."""

    name: str
    ranks: int

    def start(self, tasks: Sequence[Task]) -> None:
        """Begin one poster on all ranks, or up to ``ranks`` proofs on one each. Returns at once."""
        ...

    def poll(self) -> Report:
        """What has happened since the last call; never waits."""
        ...

    def stop(self, job_id: str) -> None:
        """Ask a task to finish its step, checkpoint and end as Stopped."""
        ...

    def draining(self) -> bool:
        """Whether a host of this gang is about to go away."""
        ...

    def destroy(self) -> None:
        """End every process of the gang, also one that does not answer."""
        ...

    def facts(self) -> dict[str, Any]:
        """``pids``, ``nodes`` and ``hosts`` of a GangReady event, tuples."""
        ...


class GangFactory(Protocol):
    """Builds gangs; blocks until the ranks have joined. Raises ClusterUnavailable."""

    def __call__(self, name: str, ranks: int) -> Gang: ...
