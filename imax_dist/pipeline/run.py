"""What a render runs with but never depends on: ranks, checkpoints, listeners, a stop signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypedDict

from torch import Tensor

from imax_dist.errors import ImaxError, Preempted
from imax_dist.events import CheckpointStarted, CheckpointWritten, Listener, Note, ignore
from imax_dist.parallel.broadcast import highest
from imax_dist.pipeline.checkpoint import Checkpoint, CheckpointFolder, pass_kind
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.preview import PreviewFile
from imax_dist.pipeline.ranks import Ranks
from imax_dist.pipeline.state import PassState
from imax_dist.shapes import Pixels
from imax_dist.wording import stage_name

CONTINUE, STOP, FAILED = 0, 1, 2
PassWatcher: TypeAlias = Callable[[PassPlan, PassState, PassState], None]


def never() -> bool:
    """The stop signal that does not come."""
    return False


class RenderHooks(TypedDict, total=False):
    """What looks on while a poster is made, and may stop it: keywords of every render, fields of ``Run``."""

    checkpoints: CheckpointFolder | None
    listen: Listener
    stop: Callable[[], bool]
    show_native: Callable[[Tensor], None] | None
    preview: PreviewFile | None


@dataclass(frozen=True)
class Run:
    """One poster being made. ``stop`` is read after every step, and after every band of the VAE by rows."""

    plan: PosterPlan
    ranks: Ranks
    checkpoints: CheckpointFolder | None = None
    listen: Listener = ignore
    stop: Callable[[], bool] = never
    show_native: Callable[[Tensor], None] | None = None
    """Rank 0 gives it the native picture, (H, W, 3) in [0, 1], before the extrapolated pass."""
    preview: PreviewFile | None = None
    """Where ``look`` writes a small picture of a pass while it runs."""
    look: PassWatcher | None = None
    """Rank 0 gives it the plan of a pass and the states before and after each of its steps."""
    guide: Pixels | None = None
    """The picture given, (1, 3, H, W) in [-1, 1] at its own size."""
    made_on: list[str] = field(default_factory=list)
    """Other ranks that have made steps of it, as its checkpoint says: the last bits may be theirs."""

    @property
    def given_native(self) -> Pixels | None:
        """The picture given, if it takes the native picture's place."""
        return self.guide if self.plan.request.starts_from_guide else None

    @property
    def makes_native(self) -> bool:
        """Whether the poster needs a native picture that has to be made: as its guide, or as the poster."""
        return not self.plan.extrapolates or (self.given_native is None and self.plan.uses_native)

    def show(self, picture: Callable[[], Tensor]) -> None:
        """Give away the native picture, if anybody wants it."""
        if self.show_native is not None:
            self.show_native(picture())

    def look_at(self, plan: PassPlan) -> Callable[[PassState, PassState], None] | None:
        """``look`` at the pass of ``plan``."""
        return None if self.look is None else partial(self.look, plan)

    def pass_of(self, state: PassState) -> PassPlan:
        """The pass that ``state`` stands in."""
        return (self.plan.native, *self.plan.passes)[state.number]

    def find_checkpoint(self) -> PassState | None:
        """The newest one this run can resume from; notes say which, and which files were passed over."""
        if self.checkpoints is None:
            return None
        checkpoint, passed_over = self.checkpoints.find(self.plan.fingerprint)
        for sentence in passed_over:
            self.listen(Note(f"not resumed: {sentence}"))
        if checkpoint is None:
            return None
        self.made_on[:] = [each for each in checkpoint.made_on if each != self.ranks.name]
        state = checkpoint.state
        self.listen(Note(f"resumed after step {state.step} of the {stage_name(self.pass_of(state).name)}"))
        return state

    def save(self, state: PassState) -> None:
        """Write a checkpoint now, if this run keeps any."""
        if self.checkpoints is None:
            return
        self.listen(CheckpointStarted(pass_kind(state), state.step))
        started = time.perf_counter()
        path = self.checkpoints.save(self._checkpoint(state))
        self.checkpoints.last.forget()
        seconds = time.perf_counter() - started
        self.listen(CheckpointWritten(str(path), pass_kind(state), state.step, seconds))

    @contextmanager
    def saved_if_stopped(self, state: PassState) -> Iterator[None]:
        """While a picture goes through the VAE: a stop there keeps what the steps before it have made."""
        try:
            yield
        except Preempted:
            if self.ranks.topology.is_first:
                self.save(state)
            raise

    def end_alone(self, state: PassState) -> None:
        """After a step of rank 0 alone: checkpoint if due, and stop if asked to. Raises Preempted then."""
        plan = self.pass_of(state)
        self._offer(state)
        stopping = self.stop() and state.step < plan.steps
        if stopping or self._due(state, plan):
            self.save(state)
        if stopping:
            raise Preempted(_stopped(state, plan))

    def end_together(self, state: PassState) -> None:
        """After a step of all ranks: the same, agreed, so that no rank waits for one that left."""
        plan, topology = self.pass_of(state), self.ranks.topology
        failure: ImaxError | None = None
        self._offer(state)
        stopping = highest(STOP if self.stop() else CONTINUE, topology) == STOP and state.step < plan.steps
        if not (stopping or self._due(state, plan)):
            return
        if topology.is_first:
            try:
                self.save(state)
            except ImaxError as error:
                failure = error
        if highest(FAILED if failure else CONTINUE, topology) == FAILED:
            raise failure or ImaxError("rank 0 could not write a checkpoint; its message says why")
        if stopping:
            stopped = Preempted(_stopped(state, plan))
            stopped.already_reported = not topology.is_first
            raise stopped

    def _offer(self, state: PassState) -> None:
        """To whoever cannot wait for the end of the next step."""
        if self.checkpoints is not None and self.ranks.topology.is_first:
            self.checkpoints.last.offer(self._checkpoint(state))

    def _checkpoint(self, state: PassState) -> Checkpoint:
        made_on = (*self.made_on, self.ranks.name)
        return Checkpoint(state, self.plan.fingerprint, self.plan.request.seed, made_on)

    def _due(self, state: PassState, plan: PassPlan) -> bool:
        return self.checkpoints is not None and self.checkpoints.due(state.step, plan.steps)


def _stopped(state: PassState, plan: PassPlan) -> str:
    step = f"step {state.step} of {plan.steps} of the {stage_name(plan.name)}"
    return f"stopped after {step}; run the same command again to resume"
