"""Progress of a batch on stderr: bars on a terminal, else a line a poster every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, assert_never

from imax_dist.cli.bars import Bars
from imax_dist.errors import Preempted
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
    PoolListener,
    PreviewWritten,
    Progress,
    StageDone,
    StageStarted,
    StepDone,
)
from imax_dist.events.batch import GangEvent, JobEvent
from imax_dist.wording import duration, plural, stage_name

if TYPE_CHECKING:
    from imax_dist.jobs.batch import Batch
    from imax_dist.jobs.board import Board
    from imax_dist.jobs.store import Row

Ended: TypeAlias = JobDone | JobProofed | JobFailed | JobCancelled
EVERY_S = 5.0
LAST = "extrapolated"
LEAST_TO_GUESS = 0.3
"""Posters made, in part or whole, before the time left is guessed."""


class BatchProgress:
    """A listener for the pool's events that prints; a context so that the terminal is left in order."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._board: Board | None = None
        self._bars = Bars(quiet=quiet)
        self._began: float | None = None
        self._ended = 0
        self._to_do = 0
        self._under_way: dict[str, float] = {}
        self._printed: dict[str, float] = {}
        self._stages: dict[str, str] = {}

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.close()
        sys.stderr.flush()

    def watch(self, board: Board) -> PoolListener:
        """Listen to the pool of this board."""
        self._board = board
        return self._on_event

    def counts(self) -> str:
        """``3 done, 2 queued``."""
        counts = [] if self._board is None else self._board.counts.most_common()
        return ", ".join(f"{count} {name}" for name, count in counts if count)

    def _on_event(self, event: PoolEvent) -> None:
        line = self._line(event)
        if line is not None:
            self._bars.write(line)

    def _line(self, event: PoolEvent) -> str | None:
        """What a person reads of an event, if anything; bars are moved on the way."""
        match event:
            case InJob():
                return self._render(event)
            case JobStarted() | JobQueued() | JobDone() | JobProofed() | JobFailed() | JobCancelled():
                return self._job(event)
            case BatchStarted(posters, waiting):
                self._to_do = waiting
                return f"{plural(posters, 'poster')}, {waiting} to do"
            case BatchPlanned(text) | BatchNote(text):
                return text
            case ClusterStarting(ray):
                return f"starting Ray {where(ray)}"
            case BatchStopping() | BatchDone():
                self._bars.close()
                return None
            case _:
                return self._gang(event)

    def _gang(self, event: GangEvent) -> str | None:
        match event:
            case GangBuilding(gang, count):
                return f"{gang}: starting {plural(count, 'rank')}"
            case GangReady(gang, count, seconds):
                return f"{gang}: {plural(count, 'rank')} ready after {seconds:.1f} s"
            case GangFailed(gang, message):
                return f"{gang} could not be built: {message}"
            case GangBroken(gang, _, message):
                self._bars.hide(gang)
                return f"{gang} lost: {message}"
            case GangDraining(gang):
                return f"{gang}: its host is leaving the cluster"
            case GangReleased():
                return None
            case _:
                assert_never(event)

    def _job(self, event: JobEvent) -> str | None:
        match event:
            case JobStarted():
                self._first_job()
                return None
            case JobQueued(job, _, after):
                return f"{job} is queued again: {after}" if after else None
            case JobDone(job):
                return self._over(event, f"{job} done in {event.seconds:.1f} s")
            case JobProofed(job):
                return self._over(event, f"{job} has its proof")
            case JobFailed(job, message):
                return self._over(event, f"{job} FAILED: {message}")
            case JobCancelled(job):
                return self._over(event, f"{job} cancelled")
            case _:
                assert_never(event)

    def _render(self, news: InJob) -> str | None:
        match news.event:
            case StageStarted(stage):
                self._stages[news.job] = stage
                return None
            case StepDone() as step:
                return self._step(news, step)
            case Progress(done, total):
                return self._progress(news, round(100 * done / total))
            case Note(text):
                return f"{news.job}: {text}"
            case StageDone() | CheckpointStarted() | CheckpointWritten() | PreviewWritten() | MemoryPeak():
                return None
            case _:
                assert_never(news.event)

    def write_line(self, line: str) -> None:
        """A line on stderr, above the bars if there are any."""
        self._bars.write(line)

    def _first_job(self) -> None:
        self._began = self._began or self._clock()
        self._draw_all()

    def _draw_all(self) -> None:
        """The bar of the whole batch."""
        self._bars.show("batch", "posters", self._ended, self._to_do, note=self._left().removeprefix(", "))

    def _step(self, news: InJob, step: StepDone) -> str | None:
        job, gang = news.job, news.gang
        last = step.stage == LAST
        self._under_way[job] = max(step.index / step.steps, self._under_way.get(job, 0.0)) if last else 0.0
        text = f"{gang}  {stage_name(step.stage)}  {job}"
        self._bars.show(gang, text, step.index, step.steps, note=f"{step.seconds:.2f} s a step")
        self._draw_all()
        place = f"{stage_name(step.stage)} {step.index}/{step.steps}, {step.seconds:.2f} s a step"
        return self._now_and_then(job, gang, place)

    def _progress(self, news: InJob, percent: int) -> str | None:
        """Of a stage without steps that takes long: a decode by rows."""
        stage = stage_name(self._stages.get(news.job, "decode"))
        self._bars.show(news.gang, f"{news.gang}  {stage}  {news.job}", percent, 100, count=False)
        return self._now_and_then(news.job, news.gang, f"{stage} {percent} %")

    def _now_and_then(self, job: str, gang: str, place: str) -> str | None:
        """Where there are no bars: a line of a poster, every few seconds."""
        if self._bars.drawn:
            return None
        now = self._clock()
        if now - self._printed.setdefault(job, now) < EVERY_S:
            return None
        self._printed[job] = now
        return f"{job} on {gang}: {place}; {self._ended} of {self._to_do} posters{self._left()}"

    def _over(self, event: Ended, text: str) -> str:
        self._ended += 1
        self._under_way.pop(event.job, None)
        if event.gang is not None:
            self._bars.hide(event.gang)
        self._draw_all()
        return text if self._bars.drawn else f"{text}; {self.counts()}{self._left()}"

    def _left(self) -> str:
        """``, about 40 s left``, from all that was done since the first poster began, also by halves."""
        made = self._ended + sum(self._under_way.values())
        missing = self._to_do - made
        if self._began is None or made < LEAST_TO_GUESS or missing <= 0:
            return ""
        return f", about {duration((self._clock() - self._began) / made * missing)} left"


def where(ray: str) -> str:
    """Where Ray is, as a person would say it."""
    return "on this machine" if ray == "local" else f"at {ray}" if ray != "auto" else "(the running cluster)"


def rendered(batch: Batch, *, quiet: bool) -> list[Row]:
    """Run the batch with its progress on stderr; Preempted says how far it came."""
    from imax_dist.cli.stop_signal import StopSignal
    from imax_dist.jobs.batch import run_batch

    with BatchProgress(quiet=quiet) as progress:
        try:
            return run_batch(batch, watch=progress.watch, arm=StopSignal(write_line=progress.write_line).arm)
        except Preempted as stopped:
            raise Preempted(f"{stopped} ({progress.counts()})") from None
