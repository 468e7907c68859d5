"""The state after the last finished step, for a checkpoint that cannot wait for the end of the next one.

A step of a large poster takes minutes, and a spot machine is often given 30 s. States are never changed, so
another thread can write one while the next is computed; on a GPU it is copied past the kernels of the step
that runs, on a stream of its own.
"""

from __future__ import annotations

import threading
from typing import Any, Generic, Protocol, TypeVar

import torch


class OnDevice(Protocol):
    """What can be offered: a checkpoint, for one."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        ...

    def to(self, device: torch.device) -> Any:
        """The same with its tensors on ``device``."""
        ...


Offered = TypeVar("Offered", bound=OnDevice)


class LastStep(Generic[Offered]):
    """One thread offers, another takes; ``lock`` is held while what was taken is written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held: tuple[Offered, torch.cuda.Event | None] | None = None

    def offer(self, value: Offered) -> None:
        """In place of the one before."""
        passed = None
        if value.device.type == "cuda":
            passed = torch.cuda.Event()
            passed.record(torch.cuda.current_stream(value.device))
        self._held = value, passed

    def forget(self) -> None:
        """It is written already, or nobody needs it any more."""
        self._held = None

    def take(self) -> Offered | None:
        """What was offered last, in host memory; None if that was taken or forgotten."""
        held, self._held = self._held, None
        if held is None:
            return None
        value, passed = held
        if passed is None:
            return value
        torch.cuda.set_device(value.device)  # of this thread, which else takes memory of the first one
        aside = torch.cuda.Stream(value.device)
        aside.wait_event(passed)
        with torch.cuda.stream(aside):
            copied: Offered = value.to(torch.device("cpu"))
        return copied
