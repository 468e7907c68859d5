"""How long a run lasts (steps, or seconds on a shared machine) and its learning rate over time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch


@dataclass
class Budget:
    """Progress 0..1 by steps, or by seconds where ``seconds`` is given (then the number of steps
    depends on the machine, all else stays seeded). ``spent`` is what earlier starts used."""

    steps: int = 0
    seconds: float = 0.0
    spent: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds of training so far, earlier starts included."""
        return self.spent + time.monotonic() - self._start

    def progress(self, step: int) -> float:
        """0 at the start, 1 (or more) when the run is over; a budget of nothing is over at once."""
        if self.seconds:
            return self.elapsed() / self.seconds
        return step / self.steps if self.steps else 1.0


def warm_then_cosine(step: int, progress: float, *, warm: int = 100, hold: float = 0.3) -> float:
    """Factor of the learning rate: linear warm-up, flat until ``hold``, then half a cosine to 1 %."""
    ramp = min(1.0, (step + 1) / warm)
    if progress < hold:
        return ramp
    return ramp * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - hold) / (1 - hold)))))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its initial one times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
