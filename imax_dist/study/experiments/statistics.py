"""Means with intervals, and differences to the baseline scene by scene, resampled over scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.study.experiments.measures import ALL
from imax_dist.study.metrics.frechet import frechet_distance
from imax_dist.study.metrics.interval import Interval, bootstrap

Floats = npt.NDArray[np.float64]
DRAWS = 200
"""Resamplings of a set distance, each of which takes a decomposition."""


@dataclass(frozen=True)
class Result:
    """A measure of a variant and its paired difference to the baseline's; both with 95 % intervals."""

    value: Interval
    difference: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        difference = None if self.difference is None else asdict(self.difference)
        return {**asdict(self.value), "difference": difference}


def compare(values: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Result]:
    """Each variant's mean and mean difference to ``baseline``; value k of every variant is scene k."""
    base = np.asarray(values[baseline], float)
    return {
        name: Result(
            bootstrap(list(own)),
            None if name == baseline else bootstrap((np.asarray(own, float) - base).tolist()),
        )
        for name, own in values.items()
    }


def compare_sets(features: Mapping[str, Floats], truth: Floats, baseline: str) -> dict[str, Result]:
    """Frechet distances to the truth, all variants on the same resampled scenes.

    Arrays are (scenes, patches, features). Resampling repeats scenes, which makes every distance
    larger; the intervals are centred on the plain distance.
    """
    plain = {name: frechet_distance(_flat(own), _flat(truth)) for name, own in features.items()}
    rng = np.random.default_rng(0)
    rows = [rng.integers(len(truth), size=len(truth)) for _ in range(DRAWS)]
    drawn = {
        name: np.array([frechet_distance(_flat(own[row]), _flat(truth[row])) for row in rows])
        for name, own in features.items()
    }
    count = len(truth)
    return {
        name: Result(
            _centred(drawn[name], plain[name], count),
            None
            if name == baseline
            else _centred(drawn[name] - drawn[baseline], plain[name] - plain[baseline], count),
        )
        for name in features
    }


def verdict(name: str, difference: Interval | None) -> str:
    """``better``, ``worse`` or ``even``: whether a paired difference's interval excludes 0."""
    direction = {"high": 1.0, "low": -1.0, "zero": 0.0}[ALL[name].better]
    if difference is None or not direction or difference.low <= 0 <= difference.high:
        return "even"
    return "better" if difference.mean * direction > 0 else "worse"


def _flat(features: Floats) -> Floats:
    return features.reshape(-1, features.shape[-1])


def _centred(draws: Floats, plain: float, count: int) -> Interval:
    low, high = np.percentile(draws - draws.mean() + plain, [2.5, 97.5])
    return Interval(float(plain), float(low), float(high), count)
