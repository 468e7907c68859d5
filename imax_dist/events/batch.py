"""Events of a batch: the batch itself, its cluster, its gangs, its jobs, and the renders in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from imax_dist.events.render import RenderEvent


@dataclass(frozen=True)
class InJob:
    """An event of the render of one job, on a gang."""

    job: str
    event: RenderEvent
    gang: str = ""


@dataclass(frozen=True)
class BatchStarted:
    """``waiting`` of the manifest's ``posters`` are not finished."""

    posters: int
    waiting: int


@dataclass(frozen=True)
class BatchPlanned:
    """The planner's choice, and the sentence that says so."""

    text: str
    gangs: int
    ranks: int


@dataclass(frozen=True)
class BatchStopping:
    """A signal arrived; running posters finish their step."""


@dataclass(frozen=True)
class BatchNote:
    """A sentence for the user: a full disk, a clock that was moved, a clean-up that failed."""

    text: str


@dataclass(frozen=True)
class BatchDone:
    """Nothing is left to do."""


@dataclass(frozen=True)
class ClusterStarting:
    """``ray`` is local, auto or an address."""

    ray: str


@dataclass(frozen=True)
class GangBuilding:
    """So many ranks are being started."""

    gang: str
    ranks: int


@dataclass(frozen=True)
class GangReady:
    """``seconds`` are those it took to build; of each rank its process, node and host."""

    gang: str
    ranks: int
    seconds: float = 0.0
    pids: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class GangFailed:
    """It could not be built."""

    gang: str
    message: str


@dataclass(frozen=True)
class GangBroken:
    """``reason`` is a kind of loss of jobs/task.py."""

    gang: str
    reason: str
    message: str


@dataclass(frozen=True)
class GangDraining:
    """Its host is about to leave the cluster."""

    gang: str


@dataclass(frozen=True)
class GangReleased:
    """No job needs a gang of its size any more."""

    gang: str


@dataclass(frozen=True)
class JobStarted:
    """``work`` is poster, proof or delivery; attempts count from 1."""

    job: str
    gang: str
    attempt: int = 1
    work: str = "poster"


@dataclass(frozen=True)
class JobQueued:
    """Back in the queue; ``after`` says why its last attempt ended."""

    job: str
    gang: str
    after: str = ""
    attempts: int = 0


@dataclass(frozen=True)
class JobDone:
    """``seconds`` are those of the attempt that made the poster."""

    job: str
    gang: str
    sha256: str = ""
    bytes: int = 0
    seconds: float = 0.0
    attempts: int = 0


@dataclass(frozen=True)
class JobProofed:
    """Its proof is made; the poster waits for approval."""

    job: str
    gang: str
    attempts: int = 0


@dataclass(frozen=True)
class JobFailed:
    """``gang`` is None where no gang had the job."""

    job: str
    message: str
    gang: str | None = None
    kind: str = ""
    attempts: int = 0
    retryable: bool = False


@dataclass(frozen=True)
class JobCancelled:
    """``gang`` is None where no gang had the job."""

    job: str
    gang: str | None = None
    attempts: int = 0


GangEvent: TypeAlias = GangBuilding | GangReady | GangFailed | GangBroken | GangDraining | GangReleased
JobEvent: TypeAlias = JobStarted | JobQueued | JobDone | JobProofed | JobFailed | JobCancelled
PoolEvent: TypeAlias = (
    InJob
    | BatchStarted
    | BatchPlanned
    | BatchStopping
    | BatchNote
    | BatchDone
    | ClusterStarting
    | GangEvent
    | JobEvent
)
PoolListener: TypeAlias = Callable[[PoolEvent], None]


Heard = TypeVar("Heard")


def both(first: Callable[[Heard], None], second: Callable[[Heard], None]) -> Callable[[Heard], None]:
    """Tell two listeners, in this order."""

    def listen(event: Heard) -> None:
        first(event)
        second(event)

    return listen
