"""One place for a gang in the pool, and the states it goes through."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from imax_dist.jobs.board import Mark
from imax_dist.jobs.task import Gang, Work
from imax_dist.pipeline.request import ModelKey

REMEMBERED_STEPS = 64
StepKey = tuple[str, str, str]
"""Stage, model, size: steps of one kind take about the same time, and so do stages without steps."""


@dataclass
class Watch:
    """When a task was last heard of, and in which stage it was."""

    heard: float
    began_at: Mark
    stage: str = "load"
    saving: bool = False
    """It waits for the disk: a checkpoint is being written."""


@dataclass(frozen=True)
class Absent:
    """No gang; none is built before ``not_before``."""

    not_before: float = 0.0
    failures: int = 0


@dataclass(frozen=True)
class Building:
    """Ranks are being started in the background."""

    gang: Future[Gang]
    ranks: int
    since: float
    failures: int
    already_reported: bool = False
    """Whether a line has said that it takes long."""


@dataclass(frozen=True)
class Idle:
    """Joined, waiting for work since then."""

    gang: Gang
    since: float = 0.0


@dataclass(frozen=True)
class Working:
    """Has tasks, by job id."""

    gang: Gang
    work: Work
    watches: dict[str, Watch]
    leaving: bool = False
    """Asked to stop because its host is shutting down."""


SlotState: TypeAlias = Absent | Building | Idle | Working


@dataclass
class Slot:
    """A named place; ``seconds`` are its gangs' last steps by kind."""

    name: str
    state: SlotState = Absent()
    seconds: dict[StepKey, deque[float]] = field(default_factory=dict)
    kept: ModelKey | None = None
    """The model that its gang has loaded."""

    def remember(self, key: StepKey, seconds: float) -> None:
        self.seconds.setdefault(key, deque(maxlen=REMEMBERED_STEPS)).append(seconds)


def alive(slots: Iterable[Slot]) -> int:
    """Gangs that are there or being built."""
    return sum(not isinstance(slot.state, Absent) for slot in slots)


def free(slots: Iterable[Slot]) -> int:
    """Gangs that will take a waiting job, now or when they are built."""
    return sum(isinstance(slot.state, Idle | Building) for slot in slots)


def kept_elsewhere(slots: Iterable[Slot], own: Slot, ranks: int) -> set[ModelKey]:
    """Models that free gangs of ``ranks``, other than ``own``, have loaded."""
    others = [slot for slot in slots if slot is not own]
    return {
        slot.kept
        for slot in others
        if slot.kept and isinstance(slot.state, Idle) and slot.state.gang.ranks == ranks
    }
