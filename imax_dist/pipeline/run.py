"""What a render runs with but never depends on: ranks, checkpoints, listeners, a stop signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imax_dist.errors import ImaxError, Preempted
from imax_dist.events import CASCADE, CheckpointStarted, CheckpointWritten, Listener, ignore
from imax_dist.parallel.broadcast import highest
from imax_dist.pipeline.checkpoint import Checkpoint, CheckpointFolder
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.ranks import Ranks
from imax_dist.shapes import Pixels

GO_ON, STOP, FAILED = 0, 1, 2


def never() -> bool:
    """The stop signal that does not come."""
    return False


@dataclass(frozen=True)
class Run:
    """One poster being made. ``stop`` is read after every step, and after every band of the VAE by rows."""

    plan: RenderPlan
    ranks: Ranks
    checkpoints: CheckpointFolder | None = None
    listen: Listener = ignore
    stop: Callable[[], bool] = never
    show_native: Callable[[Tensor], None] | None = None
    """Rank 0 gives it the native picture, (H, W, 3) in [0, 1], before the extrapolated pass."""
    guide: Pixels | None = None
    """The picture in the native pass's place, (1, 3, H, W) in [-1, 1] at native size."""

    def pass_name(self, number: int) -> str:
        """Stage name of an extrapolated pass: the last is ``extrapolated``, those before ``cascade 1`` on."""
        return "extrapolated" if number == len(self.plan.earlier) else CASCADE[number]

    def save(
        self,
        phase: Literal["native", "extrapolated"],
        step: int,
        tensors: dict[str, Tensor],
        number: int = 0,
    ) -> None:
        """Write a checkpoint now, if this run keeps any."""
        if self.checkpoints is None:
            return
        made_of = (phase, step, self.plan.fingerprint, self.plan.request.seed, tensors, number)
        checkpoint = Checkpoint(*made_of)
        self.listen(CheckpointStarted(phase, step))
        started = time.perf_counter()
        path = self.checkpoints.save(checkpoint)
        seconds = time.perf_counter() - started
        self.listen(CheckpointWritten(str(path), phase, step, seconds))

    @contextmanager
    def saved_if_stopped(
        self,
        step: int,
        tensors: dict[str, Tensor],
        number: int,
        phase: Literal["native", "extrapolated"] = "extrapolated",
    ) -> Iterator[None]:
        """While a picture goes through the VAE: a stop there keeps what the steps before it have made."""
        try:
            yield
        except Preempted:
            if self.ranks.topology.is_first:
                self.save(phase, step, tensors, number)
            raise

    def end_alone(
        self, phase: Literal["native", "extrapolated"], step: int, steps: int, tensors: dict[str, Tensor]
    ) -> None:
        """After a step of rank 0 alone: checkpoint if due, and stop if asked to."""
        stopping = self.stop() and step < steps
        if stopping or (self.checkpoints is not None and self.checkpoints.due(step, steps)):
            self.save(phase, step, tensors)
        if stopping:
            raise Preempted(_stopped(phase, step, steps))

    def end_together(self, step: int, steps: int, tensors: dict[str, Tensor], number: int = 0) -> None:
        """After a step of all ranks: the same, agreed, so that no rank waits for one that left."""
        failure: ImaxError | None = None
        due = self.checkpoints is not None and self.checkpoints.due(step, steps)
        stopping = highest(STOP if self.stop() else GO_ON, self.ranks.topology) == STOP and step < steps
        if not (due or stopping):
            return
        if self.ranks.topology.is_first:
            try:
                self.save("extrapolated", step, tensors, number)
            except ImaxError as error:
                failure = error
        if highest(FAILED if failure else GO_ON, self.ranks.topology) == FAILED:
            raise failure or ImaxError("rank 0 could not write a checkpoint; its message says why")
        if stopping:
            stopped = Preempted(_stopped(self.pass_name(number), step, steps))
            stopped.told = not self.ranks.topology.is_first
            raise stopped


def step_tensor(step: int) -> Tensor:
    """A step count that can travel with tensors."""
    return torch.tensor(step, dtype=torch.int64)


def _stopped(phase: str, step: int, steps: int) -> str:
    return f"stopped after step {step} of {steps} of the {phase} pass; --resume auto goes on from there"
