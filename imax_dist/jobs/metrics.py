"""The pool's events as Prometheus metrics, which Ray exports on every node with the prefix ``ray_``.

Tags are few and short-lived things never tags: gang, stage, state, reason.
"""

from __future__ import annotations

from collections import Counter as Tally
from typing import Any, NamedTuple, Protocol, assert_never

from ray.util.metrics import Counter, Gauge, Histogram

from imax_dist.events import (
    BatchDone,
    BatchNote,
    BatchPlanned,
    BatchStarted,
    BatchStopping,
    CheckpointStarted,
    CheckpointWritten,
    ClusterStarting,
    GangBroken,
    GangBuilding,
    GangDraining,
    GangFailed,
    GangReady,
    GangReleased,
    InJob,
    JobCancelled,
    JobDone,
    JobFailed,
    JobProofed,
    JobQueued,
    JobStarted,
    MemoryPeak,
    Note,
    PoolEvent,
    PreviewWritten,
    Progress,
    StageDone,
    StageStarted,
    StepDone,
)
from imax_dist.events.log import NAMES
from imax_dist.jobs.board import Board
from imax_dist.jobs.state import STATES

SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]


class Make(Protocol):
    """Makes a metric: name, description, tags."""

    def __call__(self, name: str, description: str, tags: tuple[str, ...] = (), /) -> Any: ...


class Kinds(NamedTuple):
    """How metrics are made."""

    counter: Make
    gauge: Make
    histogram: Make


def _ray_histogram(name: str, description: str, tags: tuple[str, ...] = (), /) -> Any:
    return Histogram(name, description, boundaries=SECONDS, tag_keys=tags)


RAY = Kinds(Counter, Gauge, _ray_histogram)


class PoolMetrics:
    """A listener; made after Ray has started. ``kinds`` makes the metrics: Ray's, or a service's own."""

    def __init__(self, board: Board, *, kinds: Kinds = RAY) -> None:
        self._board = board
        self._jobs = kinds.counter("imax_jobs_total", "Posters that ended, by state.", ("state",))
        self._steps = kinds.counter("imax_steps_total", "Denoising steps.", ("gang", "stage"))
        self._step_seconds = kinds.histogram("imax_step_seconds", "Seconds a step.", ("gang", "stage"))
        self._checkpoint_seconds = kinds.histogram(
            "imax_checkpoint_seconds", "Seconds a checkpoint took to write."
        )
        self._peak = kinds.gauge(
            "imax_peak_memory_bytes", "Most memory a rank has held (GPU, else process).", ("gang", "rank")
        )
        self._job_seconds = kinds.histogram("imax_job_seconds", "Seconds a poster.")
        self._restarts = kinds.counter("imax_gang_restarts_total", "Gangs lost, by reason.", ("reason",))
        self._gangs = kinds.gauge("imax_gangs", "Gangs, by state.", ("state",))
        self._depth = kinds.gauge("imax_queue_depth", "Posters by state.", ("state",))
        self._states: dict[str, str] = {}

    def __call__(self, event: PoolEvent) -> None:
        match event:
            case InJob():
                self._render(event)
            case JobStarted() | JobQueued():
                self.queue()
            case JobDone() | JobFailed() | JobCancelled() | JobProofed():
                self._over(event)
            case GangBuilding(gang):
                self._gang(gang, "building")
            case GangReady(gang):
                self._gang(gang, "joined")
            case GangFailed(gang) | GangBroken(gang) | GangReleased(gang):
                self._gang(gang, "gone")
                self._restart(event)
            case GangDraining() | BatchStarted() | BatchPlanned() | BatchStopping() | BatchDone():
                pass
            case ClusterStarting() | BatchNote():
                pass
            case _:
                assert_never(event)

    def _render(self, news: InJob) -> None:
        match news.event:
            case StepDone(stage) as step:
                tags = {"gang": news.gang, "stage": stage}
                self._steps.inc(1.0, tags)
                self._step_seconds.observe(step.seconds, tags)
            case CheckpointWritten() as written:
                self._checkpoint_seconds.observe(written.seconds)
            case MemoryPeak(rank, peak_bytes):
                self._peak.set(float(peak_bytes), {"gang": news.gang, "rank": str(rank)})
            case StageStarted() | StageDone() | Progress() | Note() | CheckpointStarted() | PreviewWritten():
                pass
            case _:
                assert_never(news.event)

    def _gang(self, gang: str, state: str) -> None:
        self._states[gang] = state
        tally = Tally(self._states.values())
        for each in ("building", "joined"):
            self._gangs.set(float(tally[each]), {"state": each})

    def _restart(self, event: GangFailed | GangBroken | GangReleased) -> None:
        if not isinstance(event, GangFailed):
            reason = event.reason if isinstance(event, GangBroken) else "released"
            self._restarts.inc(1.0, {"reason": reason})

    def _over(self, event: JobDone | JobFailed | JobCancelled | JobProofed) -> None:
        self._jobs.inc(1.0, {"state": NAMES[type(event)].removeprefix("job.")})
        if isinstance(event, JobDone):
            self._job_seconds.observe(event.seconds)
        self.queue()

    def queue(self) -> None:
        """How many posters are in which state now."""
        for state in STATES:
            self._depth.set(float(self._board.counts[state]), {"state": state})
