"""The pool: waiting jobs flow to free gangs, lost gangs are rebuilt, until nothing is left to do.

One thread, one loop, no waiting inside: every turn asks each slot what became of its gang. Decisions are in
policy.py, one job's attempt in attempt.py; what a gang is, in task.py (Ray's in gang.py, the tests' own).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from imax_dist.errors import ImaxError, Preempted
from imax_dist.events import (
    BatchNote,
    BatchStopping,
    GangBroken,
    GangBuilding,
    GangDraining,
    GangFailed,
    GangReady,
    GangReleased,
    JobCancelled,
    JobFailed,
)
from imax_dist.jobs import policy
from imax_dist.jobs.attempt import Attempts
from imax_dist.jobs.board import Board
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.slot import Absent, Building, Idle, Slot, SlotState, Working, alive, free, kept_elsewhere
from imax_dist.jobs.state import Cancelled, Failed
from imax_dist.jobs.task import Gang, GangFactory, Lost
from imax_dist.wording import first_line, plural

LOOK_EVERY_S = 1.0
"""How often the store is read for cancellations, the cluster for draining hosts, the folder for its owner."""
ABSENT_S = 2.0
"""A turn takes milliseconds; after a longer one the driver itself was away."""
CLOCK_MOVED_S = 5.0
LONG_BUILD_S = 120.0
IDLE_TICK_S = 0.25
"""Between two looks of an open queue without work; ``deps.sleep`` may end early when a job arrives."""


class Pool:
    """Gangs for the jobs of ``board``, whose folders are in ``out``."""

    def __init__(
        self,
        board: Board,
        build: GangFactory,
        settings: PoolSettings,
        *,
        out: Path,
        proofs_only: bool = False,
        deps: PoolDeps | None = None,
    ) -> None:
        self.board = board
        self.settings = settings
        self._build = build
        self._deps = deps or PoolDeps()
        self._attempts = Attempts(board, settings, self._deps, out=out, proofs_only=proofs_only)
        self._slots = [Slot(f"gang-{index}") for index in range(settings.gangs)]
        self._turned_at = self._deps.now()
        self._looked_at = self._turned_at - LOOK_EVERY_S
        self._clocks_apart = self._deps.wall() - self._deps.now()
        self._just_looked = False
        self._stop_at: float | None = None

    def run(self) -> None:
        """Until every job is over; an open-ended queue, until it is asked to stop.

        Raises Preempted if asked to stop, ClusterUnavailable without any gang.
        """
        try:
            while not self.board.over:
                self._notice_absence()
                self._take_commands()
                for slot in self._slots:
                    slot.state = self._advance(slot)
                if self._stop_at is not None and self._stopped():
                    raise Preempted("stopped after a checkpoint; run the same command again to resume")
                self._deps.sleep(IDLE_TICK_S if self._at_rest() else self._deps.tick_s)
        finally:
            self._leave()

    def _advance(self, slot: Slot) -> SlotState:
        state = slot.state
        if isinstance(state, Absent):
            return self._absent(slot, state)
        if isinstance(state, Building):
            return self._building(slot, state)
        if isinstance(state, Idle):
            return self._idle(slot, state)
        return self._working(slot, state)

    def _absent(self, slot: Slot, state: Absent) -> SlotState:
        slot.kept = None
        ranks = self._size_needed(slot)
        if self._stop_at is not None or ranks is None or self._deps.now() < state.not_before:
            return state
        self._deps.listen(GangBuilding(slot.name, ranks))
        future = self._deps.background(lambda: self._build(slot.name, ranks))
        return Building(future, ranks, self._deps.now(), state.failures)

    def _building(self, slot: Slot, state: Building) -> SlotState:
        if not state.gang.done():
            return self._patient(slot, state)
        error = state.gang.exception()
        if error is None:
            gang = state.gang.result()
            seconds = round(self._deps.now() - state.since, 3)
            self._deps.listen(GangReady(slot.name, gang.ranks, seconds, **gang.facts()))
            return Idle(gang, self._deps.now())
        if not isinstance(error, ImaxError):
            raise error
        failures = state.failures + 1
        self._deps.listen(GangFailed(slot.name, str(error)))
        waits = self.board.open_ended and state.ranks == self.settings.ranks  # room may come back
        enough = failures >= self.settings.retry.gang_builds and not waits
        hopeless = enough or not error.retryable
        if hopeless and not self._gangs():
            self._give_up(state.ranks, error)
            return Absent()
        return Absent(self._deps.now() + policy.backoff(self.settings.retry, failures), failures)

    def _patient(self, slot: Slot, state: Building) -> Building:
        """Say once that a gang takes long: on a cluster it may wait half an hour for a machine."""
        if state.already_reported or self._deps.now() < state.since + LONG_BUILD_S:
            return state
        ranks = plural(state.ranks, "rank")
        text = f"{slot.name} has waited {LONG_BUILD_S:g} s for room for {ranks}, or for their start"
        self._deps.listen(BatchNote(f"{text}, and is still waiting"))
        return replace(state, already_reported=True)

    def _idle(self, slot: Slot, state: Idle) -> SlotState:
        gang = state.gang
        lost = gang.poll().lost or (self._drained(gang) if self._just_looked else None)
        if lost is not None:
            return self._lose(slot, gang, lost)
        if self._stop_at is not None:
            return state
        begun = self._attempts.begin(slot, gang, elsewhere=kept_elsewhere(self._slots, slot, gang.ranks))
        if begun is not None:
            return begun
        wanted = {ranks or self.settings.ranks for ranks in self.board.ranks_wanted()}
        if gang.ranks in wanted or not (wanted or self._may_go(state)):
            return state
        gang.destroy()
        self._deps.listen(GangReleased(slot.name))
        return Absent()

    def _working(self, slot: Slot, state: Working) -> SlotState:
        lost = self._attempts.follow(slot, state)
        if lost is not None:
            return self._lose(slot, state.gang, lost)
        if state.watches:
            return self._drain(slot, state) if self._just_looked else state
        if state.leaving:
            return self._lose(slot, state.gang, Lost("drained", "its host is shutting down"))
        return Idle(state.gang, self._deps.now())

    def _may_go(self, state: Idle) -> bool:
        """Whether an open queue gives back the devices of a gang that has had no work for long."""
        rested = self._deps.now() - state.since > self.settings.idle
        return self.board.open_ended and rested and alive(self._slots) > self.settings.least_gangs

    def _drain(self, slot: Slot, state: Working) -> SlotState:
        if state.leaving or self._drained(state.gang) is None:
            return state
        self._deps.listen(GangDraining(slot.name))
        for job_id in state.watches:
            state.gang.stop(job_id)
        return replace(state, leaving=True)

    def _drained(self, gang: Gang) -> Lost | None:
        return Lost("drained", "its host is shutting down") if gang.draining() else None

    def _lose(self, slot: Slot, gang: Gang, lost: Lost) -> SlotState:
        gang.destroy()
        self._deps.listen(GangBroken(slot.name, lost.kind, lost.message))
        return Absent()

    def _notice_absence(self) -> None:
        """A driver that was stopped, swapped out or waited for a disk has heard nothing: no gang's fault."""
        now = self._deps.now()
        away, self._turned_at = now - self._turned_at, now
        if away < ABSENT_S:
            return
        for slot in self._slots:
            if isinstance(slot.state, Working):
                self._attempts.excuse(slot.state, away)

    def _watch_clock(self) -> None:
        moved = self._deps.wall() - self._deps.now() - self._clocks_apart
        if abs(moved) > CLOCK_MOVED_S:
            self._clocks_apart += moved
            text = f"the clock moved by {moved:+.0f} s (set, or the machine slept); no deadline depends on it"
            self._deps.listen(BatchNote(text))

    def _take_commands(self) -> None:
        """Listen to signals and, once a second, to what the store and the cluster say."""
        now = self._deps.now()
        if self._stop_at is None and (self._deps.stop() or self._notice_given()):
            self._stop_at = now
            self._deps.listen(BatchStopping())
            for job_id in self.board.running():
                self._stop(job_id)
        self._just_looked = now - self._looked_at >= LOOK_EVERY_S
        if self._just_looked:
            self._looked_at = now
            self._deps.check()
            self._watch_clock()
        if self._just_looked or self._deps.news():
            self._look()

    def _notice_given(self) -> bool:
        """That the driver's own host is shutting down."""
        return bool(self.settings.notice) and Path(self.settings.notice).exists()

    def _look(self) -> None:
        for job_id in self.board.look():
            if isinstance(state := self.board.states[job_id], Cancelled):
                self._deps.listen(JobCancelled(job_id, attempts=state.attempts))
        for job_id in self.board.cancelled() - self._attempts.cancelling:
            self._attempts.cancelling.add(job_id)
            self._stop(job_id)

    def _stop(self, job_id: str) -> None:
        for slot in self._slots:
            if isinstance(slot.state, Working) and job_id in slot.state.watches:
                slot.state.gang.stop(job_id)

    def _stopped(self) -> bool:
        assert self._stop_at is not None
        overdue = self._deps.now() - self._stop_at > self.settings.deadlines.stop
        return overdue or not any(isinstance(slot.state, Working) for slot in self._slots)

    def _size_needed(self, slot: Slot) -> int | None:
        """Ranks of the gang this slot should have: the usual, a larger one for what is left, or none."""
        usual = self.settings.ranks
        wanted = {ranks or usual for ranks in self.board.ranks_wanted()}
        too_few = self.board.open_ended and alive(self._slots) < self.settings.least_gangs
        if too_few or (usual in wanted and self.board.waits > free(self._slots)):
            return usual
        if usual in wanted:
            return None
        others = (other for other in self._slots if other is not slot)
        alone = all(isinstance(other.state, Absent) for other in others)
        return min(wanted) if wanted and alone and slot is self._slots[0] else None

    def _at_rest(self) -> bool:
        """Whether nothing can happen but that somebody asks for something."""
        quiet = all(isinstance(slot.state, Absent | Idle) for slot in self._slots)
        return self.board.open_ended and quiet and not self.board.waits

    def _gangs(self) -> bool:
        return any(isinstance(slot.state, Idle | Working) for slot in self._slots)

    def _give_up(self, ranks: int, error: ImaxError) -> None:
        """No gang can be built: the batch ends, or only the jobs that need a larger one than usual."""
        if ranks == self.settings.ranks:
            raise error
        for job_id, state in list(self.board.waiting()):
            if state.ranks == ranks:
                message = f"{state.after}; {ranks} ranks are not available: {error}"
                failed = Failed("out_of_memory", message, state.attempts, proofed=state.proofed)
                self.board.move(job_id, failed)
                self._deps.listen(JobFailed(job_id, message, kind="out_of_memory", attempts=state.attempts))

    def _leave(self) -> None:
        """End every gang; what they had goes back into the queue. A failure of this changes no result."""
        for slot in self._slots:
            if isinstance(slot.state, Idle | Working):
                self._clean_up(slot.state.gang.destroy)
            elif isinstance(slot.state, Building):
                slot.state.gang.add_done_callback(_destroy_late)
            slot.state = Absent()
        self._clean_up(self._attempts.interrupt)

    def _clean_up(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._deps.listen(BatchNote(f"cleaning up: {first_line(error)}"))


def _destroy_late(future: Future[Gang]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().destroy()
