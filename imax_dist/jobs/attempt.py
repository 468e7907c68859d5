"""A job's attempt on a gang: begun, followed, concluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import assert_never

from imax_dist.errors import ImaxError
from imax_dist.events import (
    CheckpointStarted,
    CheckpointWritten,
    InJob,
    JobStarted,
    MemoryPeak,
    Note,
    PreviewWritten,
    Progress,
    StageDone,
    StageStarted,
    StepDone,
)
from imax_dist.events.batch import JobEvent
from imax_dist.events.log import append_to
from imax_dist.jobs import policy
from imax_dist.jobs.board import Board
from imax_dist.jobs.deliver import delivered
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.slot import Slot, Watch, Working
from imax_dist.jobs.state import Queued, Running, State, done_state, event_of, interrupted
from imax_dist.jobs.task import Gang, Lost, Outcome, Task, Work
from imax_dist.output.image.poster import require_printable
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.request import ModelKey, key_of
from imax_dist.settings_mapping import to_mapping

MOST_COMPARED = 64
"""Waiting jobs, from the head of the queue, among which a gang looks for those of its model."""
SLOW_DISK_S = 5.0
"""A checkpoint that takes longer is worth a note."""


class Attempts:
    """Takes waiting jobs of ``board`` to gangs and what comes of them back."""

    def __init__(
        self,
        board: Board,
        settings: PoolSettings,
        deps: PoolDeps,
        *,
        out: Path,
        proofs_only: bool = False,
    ) -> None:
        self.board = board
        self.settings = settings
        self.cancelling: set[str] = set()
        self._disk_named = False
        self._passed: Counter[str] = Counter()
        self._deps = deps
        self._out = out
        self._proofs_only = proofs_only

    def begin(self, slot: Slot, gang: Gang, *, elsewhere: Collection[ModelKey] = ()) -> Working | None:
        """Give a free gang what it should do next; None if there is nothing for it now.

        ``elsewhere`` are the models that other free gangs of its size have loaded.
        """
        now = self._deps.now()
        first = self.settings.proofs_first or self._proofs_only
        ready = policy.head_of(
            self.board.waiting(), now=now, ranks=gang.ranks, proofs_first=first, most=MOST_COMPARED
        )
        jobs = {job_id: self.board.job(job_id) for job_id, _ in ready}
        chosen = policy.choose(
            policy.order_for(ready, jobs, kept=slot.kept, elsewhere=elsewhere, passed=self._passed),
            now=now,
            ranks=gang.ranks,
            proofs_first=self.settings.proofs_first,
            ahead=bool(self.settings.passes_ahead),
            proofs_only=self._proofs_only,
        )
        if chosen is None:
            return None
        begun = self.board.claim(chosen.ids, slot.name, most=chosen.most)
        tasks = [task for job in begun if (task := self._task(slot.name, job, chosen.work)) is not None]
        if not tasks:
            return None
        slot.kept = key_of(tasks[0].request)
        self._count_passed_over(jobs, tasks[0].job_id)
        gang.start(tasks)
        watches = {task.job_id: Watch(now, self.board.furthest(task.job_id)) for task in tasks}
        return Working(gang, chosen.work, watches)

    def _count_passed_over(self, jobs: Mapping[str, Job], taken: str) -> None:
        """Jobs of other models that stood before ``taken`` in the queue."""
        self._passed.pop(taken, None)
        key = key_of(jobs[taken].request)
        before = takewhile(lambda job_id: job_id != taken, jobs)
        self._passed.update(job_id for job_id in before if key_of(jobs[job_id].request) != key)

    def follow(self, slot: Slot, working: Working) -> Lost | None:
        """Take in a gang's news; the loss if it has to be given up."""
        report = working.gang.poll()
        for news in report.events:
            self._take_in(slot, working, news)
        for job_id in report.moved & working.watches.keys():
            working.watches[job_id].heard = self._deps.now()
        for job_id, outcome in report.ended.items():
            self._conclude(slot.name, working, job_id, outcome)
        lost = report.lost or self._overdue(slot, working)
        if lost is not None:
            for job_id in list(working.watches):
                self._conclude(slot.name, working, job_id, lost)
        return lost

    def interrupt(self) -> None:
        """Put whatever is still running back into the queue, but for what was cancelled."""
        self.board.patience_s = 0.0  # the run has ended: what cannot be written now, the next one recovers
        for job_id in self.board.running():
            state = self.board.states[job_id]
            assert isinstance(state, Running)
            self.board.move(job_id, interrupted(state))

    def _task(self, slot: str, job_id: str, work: Work) -> Task | None:
        job, running = self.board.job(job_id), self.board.states[job_id]
        assert isinstance(running, Running)
        state = running.before
        attempt = state.attempts + 1
        try:
            folder = JobFolder.of(self._out, job_id)
            made = folder.finished(job.fingerprint)
            sent = delivered(folder.path, self.settings.deliver, job.fingerprint)
            if made is not None and (sent or not self.settings.deliver):
                # the gang or the batch was lost after DONE was written
                CheckpointFolder(self._checkpoints(job_id, folder)).remove()
                self._store(job_id, done_state({**made, "delivered": sent}, attempts=state.attempts), slot)
                return None
            if made is None:
                require_printable(folder.poster, to_mapping(job.request))
                folder.open(job)
        except ImaxError as error:
            outcome = policy.refusal(error)
            self._store(job_id, policy.after(outcome, state, self.settings, self._what(work)), slot)
            return None
        ahead = self._passes_ahead(state)
        self._report(JobStarted(job_id, slot, attempt, work))
        return Task(
            job_id=job_id,
            fingerprint=job.fingerprint,
            request=job.request,
            folder=str(folder.path.resolve()),
            work=work if made is None else "delivery",
            attempt=attempt,
            checkpoint_every=self.settings.checkpoint_every,
            preview_every=self.settings.preview_every,
            small_proof=not ahead and (self.settings.proof == "small" or job.request.starts_from_guide),
            passes_ahead=ahead,
            deliver=self.settings.deliver,
            checkpoints=str(self._checkpoints(job_id, folder)),
            hangs=state.hangs,
        )

    def _passes_ahead(self, state: Queued) -> int:
        """None where the proof is to be looked at, nor again where an attempt at them failed."""
        looked_at = self._proofs_only or self.settings.proofs_first or state.approval
        return 0 if looked_at or state.attempts else self.settings.passes_ahead or 0

    def _checkpoints(self, job_id: str, folder: JobFolder) -> Path:
        elsewhere = self.settings.checkpoints
        return (Path(elsewhere) / job_id if elsewhere else folder.checkpoints).absolute()

    def _take_in(self, slot: Slot, working: Working, news: InJob) -> None:
        job_id = news.job
        self._deps.listen(replace(news, gang=slot.name))
        watch = working.watches.get(job_id)
        if watch is None:
            return
        watch.heard = self._deps.now()
        match news.event:
            case StageStarted(stage):
                watch.stage = stage
            case StageDone(stage, seconds):
                watch.stage = "between"
                if stage not in policy.STEPPING:
                    slot.remember(self._key(job_id, stage), seconds)
            case StepDone() as step:
                if not step.skipped:  # its seconds are not a step's
                    slot.remember(self._key(job_id, watch.stage), step.seconds)
                self.board.step(job_id, step.stage, step.index, step.steps)
            case CheckpointStarted():
                watch.saving = True
            case CheckpointWritten(seconds=seconds):
                watch.saving = False
                self._name_slow_disk(news, seconds)
            case Progress() | Note() | MemoryPeak() | PreviewWritten():
                pass  # signs of life
            case _:
                assert_never(news.event)

    def _name_slow_disk(self, news: InJob, seconds: float) -> None:
        if seconds < SLOW_DISK_S or self._disk_named:
            return
        self._disk_named = True
        text = f"writing a checkpoint took {seconds:.1f} s: the disk of {self._out} is slow"
        self._deps.listen(replace(news, event=Note(text)))

    def excuse(self, working: Working, seconds: float) -> None:
        """Nobody listened for so long; that is no silence of the gang's."""
        for watch in working.watches.values():
            watch.heard += seconds

    def _overdue(self, slot: Slot, working: Working) -> Lost | None:
        for job_id, watch in working.watches.items():
            state = self.board.states[job_id]
            hangs = state.before.hangs if isinstance(state, Running) else 0
            stage = "checkpoint" if watch.saving else watch.stage
            seconds = slot.seconds.get(self._key(job_id, stage), ())
            limits = self.settings.deadlines
            allowed = policy.allowed_silence(limits, stage, tuple(seconds), patience=hangs)
            silent = self._deps.now() - watch.heard
            if silent > allowed:
                text = f"no event from {job_id} for {silent:.1f} s ({stage}; {allowed:.1f} s allowed)"
                return Lost("hung", text)
        return None

    def _key(self, job_id: str, stage: str) -> tuple[str, str, str]:
        request = self.board.job(job_id).request
        return stage, request.model, str(request.size)

    def _conclude(self, gang: str, working: Working, job_id: str, outcome: Outcome) -> None:
        watch = working.watches.pop(job_id)
        state = self.board.states[job_id]
        assert isinstance(state, Running)
        what = policy.Circumstances(
            now=self._deps.now(),
            work=working.work,
            progressed=self.board.furthest(job_id) > watch.began_at,
            ranks=working.gang.ranks,
            proofs_only=self._proofs_only,
            ahead=working.work == "proof" and self._passes_ahead(state.before) > 1,
            remedy=lambda: self._deps.remedy(self.board.job(job_id).request, working.gang.ranks),
        )
        self.cancelling.discard(job_id)
        self._store(job_id, policy.after(outcome, state.before, self.settings, what), gang)

    def _store(self, job_id: str, state: State, gang: str) -> None:
        kept = self.board.move(job_id, state)
        self._report(event_of(job_id, kept, gang))

    def _report(self, event: JobEvent) -> None:
        """Into the job's own events as well, if its folder can be written."""
        self._deps.listen(event)
        try:
            append_to(JobFolder.of(self._out, event.job).events)(event)
        except (OSError, ImaxError):
            return  # a log only; the store and the batch's own events have it

    def _what(self, work: Work) -> policy.Circumstances:
        return policy.Circumstances(
            now=self._deps.now(),
            work=work,
            progressed=False,
            ranks=self.settings.ranks,
            proofs_only=self._proofs_only,
        )
