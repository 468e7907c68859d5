"""Bootstrap intervals of a mean: Efron and Tibshirani, An Introduction to the Bootstrap, 1993."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imax_dist.errors import BadValue


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % percentile interval, and how many pictures it rests on."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}] (n={self.n})"


def bootstrap(values: Sequence[float], *, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean of ``values`` with a 95 % interval. Raises BadValue if there are none."""
    if not len(values):
        raise BadValue("bootstrap: no values were given; measure at least one picture")
    data = np.asarray(values, float)
    rows = np.random.default_rng(seed).integers(len(data), size=(draws, len(data)))
    low, high = np.percentile(data[rows].mean(1), [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high), len(data))
