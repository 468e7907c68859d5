"""Events of one render, and how a stage announces them.

Stages of a poster: load, join, picture (where one is given), prompt, native, endpoint, extrapolated, decode
and write; in a cascade ``cascade 1``, ``cascade 2`` ... come before extrapolated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

MOST_PASSES = 8
"""Of a cascade before its last one."""
CASCADE = tuple(f"cascade {number}" for number in range(1, MOST_PASSES + 1))
"""Their names as stages."""

PROGRESS_S = 1.0
"""Seconds between two events of progress."""


@dataclass(frozen=True)
class StageStarted:
    """``steps`` is 0 for a stage without steps."""

    stage: str
    steps: int = 0


@dataclass(frozen=True)
class StepDone:
    """Step ``index`` of ``steps`` (counted from 1), which began at ``sigma``."""

    stage: str
    index: int
    steps: int
    sigma: float
    seconds: float
    skipped: bool = False
    """The forward pass was skipped: its seconds say nothing about other steps."""


@dataclass(frozen=True)
class Progress:
    """Within a long stage without steps, at most one a second."""

    done: int
    total: int


@dataclass(frozen=True)
class StageDone:
    """``seconds`` since it started."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class CheckpointStarted:
    """From here to CheckpointWritten it is the disk that is waited for."""

    phase: str
    step: int


@dataclass(frozen=True)
class CheckpointWritten:
    """``step`` of ``phase`` is kept in the file ``path``."""

    path: str
    phase: str
    step: int
    seconds: float


@dataclass(frozen=True)
class PreviewWritten:
    """The file ``path`` shows a pass after step ``index`` of ``steps``; each preview replaces the last."""

    path: str
    stage: str
    index: int
    steps: int
    seconds: float
    """What making and writing it took."""


@dataclass(frozen=True)
class Note:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class MemoryPeak:
    """Most memory a rank has held, in bytes: of its GPU, or of its process where it has none."""

    rank: int
    peak_bytes: int


RenderEvent: TypeAlias = (
    StageStarted
    | StepDone
    | Progress
    | StageDone
    | CheckpointStarted
    | CheckpointWritten
    | PreviewWritten
    | Note
    | MemoryPeak
)
Listener: TypeAlias = Callable[[RenderEvent], None]


def ignore(event: object) -> None:
    """The listener that does nothing."""


@contextmanager
def stage(listen: Listener, name: str, *, steps: int = 0) -> Iterator[None]:
    """Announce a stage's start and, if it ends well, its end with the seconds it took."""
    started = time.perf_counter()
    listen(StageStarted(name, steps))
    yield
    listen(StageDone(name, time.perf_counter() - started))


def progress(listen: Listener, total: int) -> Callable[[int], None]:
    """A function that takes how much more is done and reports at most once a second, and at the end."""
    done, reported = 0, time.monotonic()

    def count(more: int) -> None:
        nonlocal done, reported
        done += more
        now = time.monotonic()
        if done >= total or now - reported >= PROGRESS_S:
            reported = now
            listen(Progress(done, total))

    return count
