"""Where a rank is: marks in stages, blocks and exchanges, cheap enough for every one of them.

On a GPU the host runs ahead of its kernels by up to a step, so a mark is a CUDA event and counts when the
device has passed it; asking an event waits for nothing. On a CPU a mark counts at once (DECISIONS 85).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, assert_never, runtime_checkable

import torch

from imax_dist.events import (
    CheckpointStarted,
    CheckpointWritten,
    MemoryPeak,
    Note,
    PreviewWritten,
    Progress,
    RenderEvent,
    StageDone,
    StageStarted,
    StepDone,
)

BETWEEN = "between stages"
CHECKPOINT = "checkpoint"
KEPT = 128
"""Of the last intervals between marks, for what is usual."""
MOST_PENDING = 2048
"""Marks that the device has not passed yet; further ones are left out until it has."""
SHORT_STEP_S = 0.4
"""Of a shorter step on a GPU only blocks are marked, for events would cost more than they tell."""


@dataclass(frozen=True, slots=True)
class Place:
    """``step`` counts the stage's finished steps, ``block`` the attention calls begun in this one."""

    stage: str = BETWEEN
    steps: int = 0
    """Of the stage; 0 where it has none."""
    step: int = 0
    block: int = 0
    waiting: str = ""
    """The exchange that needs other ranks; empty while this rank computes by itself."""

    @property
    def is_new(self) -> bool:
        """Before a size has been seen twice: kernels are planned, code compiled, links opened."""
        return self.step < 2

    @property
    def order(self) -> tuple[int, int]:
        return self.step, self.block

    def __str__(self) -> str:
        name = f"block {self.block} of step {self.step + 1} of {self.stage}" if self.steps else self.stage
        return f"{self.waiting} in {name}" if self.waiting else name


@runtime_checkable
class Marks(Protocol):
    """What code that others wait for is given to say where it is."""

    def mark(self) -> None:
        """Something went on in this stage."""
        ...

    def block(self) -> None:
        """A block of the network begins its attention."""
        ...

    def waiting(self, exchange: str) -> AbstractContextManager[None]:
        """In this block, nothing goes on without other ranks."""
        ...

    def on_event(self, event: RenderEvent) -> None:
        """Follow a render's events: stages, steps, checkpoints."""
        ...


class Beacon:
    """Marks of one rank. ``device`` decides how they are passed; ``events`` makes one event of the device."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        events: Callable[[], Any] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        on_gpu = torch.device(device).type == "cuda"
        self._new_event = events or (torch.cuda.Event if on_gpu else None)
        self._now = now
        self._place = self._left = Place()
        self._fine = True
        self._pending: deque[tuple[Any, Place]] = deque()
        self._spare: list[Any] = []
        self.passed = 0
        """Marks that are over."""
        self.place = self._place
        """Where the last of them was made."""
        self._passed_at = now()
        self._intervals: deque[float] = deque(maxlen=KEPT)

    @property
    def usual(self) -> float:
        """Seconds that nine of ten intervals between marks took while this rank computed; 0: unknown."""
        taken = sorted(self._intervals)
        return taken[int(0.9 * (len(taken) - 1))] if taken else 0.0

    def mark(self) -> None:
        if self._new_event is None:
            self._pass(self._place, 1)
            return
        if len(self._pending) >= MOST_PENDING:
            return
        event = self._spare.pop() if self._spare else self._new_event()
        event.record()
        self._pending.append((event, self._place))

    def block(self) -> None:
        now = self._place
        self._place = Place(now.stage, now.steps, now.step, now.block + 1)
        self.mark()

    def waiting(self, exchange: str) -> AbstractContextManager[None]:
        return _Waiting(self, exchange) if self._fine else nullcontext()

    def on_event(self, event: RenderEvent) -> None:
        match event:
            case StageStarted(stage, steps):
                self._fine = True
                self._intervals.clear()
                self._place = Place(stage, steps)
            case StepDone() as done:
                self._fine = self._new_event is None or done.seconds >= SHORT_STEP_S or done.index < 2
                self._place = Place(done.stage, done.steps, done.index)
            case StageDone():
                self._place = Place()
            case CheckpointStarted():
                self._place, self._left = Place(CHECKPOINT), self._place
            case CheckpointWritten():
                self._place = self._left
            case Progress() | PreviewWritten() | Note() | MemoryPeak():
                pass  # a sign of life in the same place
            case _:
                assert_never(event)
        self.mark()

    def look(self) -> None:
        """Take in which marks the device has passed; waits for nothing."""
        passed, place = 0, self.place
        while self._pending and self._pending[0][0].query():
            event, place = self._pending.popleft()
            self._spare.append(event)
            passed += 1
        if passed:
            self._pass(place, passed)

    def exchange(self, name: str) -> None:
        """Go into an exchange, or out of it without a name."""
        now = self._place
        self._place = Place(now.stage, now.steps, now.step, now.block, name)
        self.mark()

    def _pass(self, place: Place, count: int) -> None:
        now = self._now()
        if not self.place.waiting and place.stage == self.place.stage:
            self._intervals.append((now - self._passed_at) / count)
        self._passed_at = now
        self.place = place
        self.passed += count


class _Waiting:
    """Marks the way into an exchange and the way out of it."""

    def __init__(self, beacon: Beacon, exchange: str) -> None:
        self._beacon = beacon
        self._exchange = exchange

    def __enter__(self) -> None:
        self._beacon.exchange(self._exchange)

    def __exit__(self, *raised: object) -> None:
        self._beacon.exchange("")


class Silent:
    """Marks that nobody looks at."""

    def mark(self) -> None:
        pass

    def block(self) -> None:
        pass

    def waiting(self, exchange: str) -> AbstractContextManager[None]:
        del exchange
        return nullcontext()

    def on_event(self, event: RenderEvent) -> None:
        pass


SILENT = Silent()
