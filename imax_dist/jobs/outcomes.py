"""What a rank's end means, and which of several ranks' ends says most about a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from imax_dist.errors import ImaxError
from imax_dist.jobs.task import Finished, Lost, Outcome, Refused, Stopped
from imax_dist.wording import first_line

ECHO = ImaxError.__name__
"""The class under which a rank passes on another rank's unexpected error."""
LOSSES = ("out_of_memory", "died", "hung", "crashed", "drained")
End = TypeVar("End", bound=Finished | Stopped | Refused | Lost)


def outcome_of(reference: Any, rank: int) -> Outcome:
    """What the finished call of ``Rank.run`` says, or how its process ended."""
    try:
        result = ray.get(reference)
    except RayError as error:
        return loss_of(error, rank)
    ((kind, details),) = result.items()
    if kind == "finished":
        return Finished(details)
    if kind == "stopped":
        return Stopped()
    if kind == "refused":
        return Refused(**details)
    return Lost(details["kind"], f"rank {rank}: {details['message']}")


def loss_of(error: RayError, rank: int) -> Lost:
    """A rank's process is gone, or its call raised; Ray ends processes when a host runs out of memory."""
    if isinstance(error, RayTaskError):
        return Lost("crashed", f"rank {rank}: {cause_of(error)}")
    text = str(error)
    memory = isinstance(error, OutOfMemoryError) or "running low on memory" in text
    return Lost("out_of_memory" if memory else "died", f"rank {rank} died: {cause_of(error)}")


def most_informative(ends: Sequence[End]) -> End:
    """Out of memory, then a refusal with its own class, then other losses; success only if all succeeded.

    A crash may be the echo of another rank's end, and a bare ImaxError passes another rank's error on. Among
    equals the lowest rank's, which comes first.
    """
    return min(ends, key=_order)


def cause_of(error: Exception) -> str:
    """Class and first line of an error; of what Ray wraps, the error in the rank."""
    error = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(error).__name__}: {first_line(error)}"


def _order(outcome: Outcome) -> int:
    if isinstance(outcome, Lost):
        return 0 if outcome.kind == "out_of_memory" else 2 + LOSSES.index(outcome.kind)
    if isinstance(outcome, Refused):
        return 1 if outcome.error != ECHO else 2 + len(LOSSES)
    return 3 + len(LOSSES) if isinstance(outcome, Stopped) else 4 + len(LOSSES)
