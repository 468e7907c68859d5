"""What a study reads from one picture. Each measure names its direction and what it needs to be known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from imax_dist.models.find import find_model
from imax_dist.study.metrics.artefacts import grid_strength, seam_strength, speckle
from imax_dist.study.metrics.bands import high_band, layout_agreement
from imax_dist.study.metrics.edges import detail_correlation, match_edges
from imax_dist.study.metrics.repetition import repetitions
from imax_dist.study.metrics.spectrum import detail_against_truth
from imax_dist.study.scenes import Scene, parse
from imax_dist.study.scenes.caption import vocabulary
from imax_dist.study.scenes.parse import matches

Pixels = npt.NDArray[np.uint8]
Better = Literal["high", "low", "zero"]


@dataclass(frozen=True)
class Sample:
    """A drawn picture and what it is held against. ``scene`` and ``truth`` are None for a model that
    does not draw scenes."""

    picture: Pixels
    native: Pixels
    scale: float
    scene: Scene | None = None
    truth: Pixels | None = None

    @property
    def factor(self) -> int:
        """The scale as a whole number, for block means."""
        return max(1, round(self.scale))

    @cached_property
    def found(self) -> dict[str, Any]:
        return parse(self.picture)

    @cached_property
    def repeated(self) -> dict[str, int]:
        assert self.scene is not None
        return repetitions(self.picture, self.scene, native=self.native)


@dataclass(frozen=True)
class Measure:
    """A number read from a picture. ``needs`` says for which models and guides it exists."""

    text: str
    better: Better
    needs: Literal["nothing", "scenes", "true guide"]
    read: Callable[[Sample], float]


def _facts(sample: Sample) -> float:
    assert sample.scene is not None
    return float(np.mean(list(matches(sample.found, sample.scene.facts()).values())))


def _spectrum(sample: Sample) -> float:
    assert sample.truth is not None
    return detail_against_truth(sample.picture, sample.truth, factor=sample.factor)


def _energy(sample: Sample) -> float:
    return float(np.sqrt(np.square(high_band(sample.picture, sample.factor)).mean()))


def _seam(sample: Sample) -> float:
    """At the borders of native-sized cells, where text copies may show; rows and columns."""
    height, width = sample.picture.shape[:2]
    rows, columns = sample.native.shape[:2]
    down = seam_strength(sample.picture, range(rows, height - 3, rows))
    across = seam_strength(sample.picture.transpose(1, 0, 2), range(columns, width - 3, columns))
    return max(down, across)


def _edges(sample: Sample) -> float:
    assert sample.truth is not None
    return match_edges(sample.picture, sample.truth).f1


def _placed(sample: Sample) -> float:
    assert sample.truth is not None
    return detail_correlation(sample.picture, sample.truth, factor=sample.factor)


MEASURES: dict[str, Measure] = {
    "facts": Measure("caption facts recovered, of 11", "high", "scenes", _facts),
    "repeats": Measure(
        "lights, objects and horizons too many", "low", "scenes", lambda s: float(sum(s.repeated.values()))
    ),
    "layout": Measure(
        "low band against the native picture, dB", "high", "nothing",
        lambda s: min(99.0, layout_agreement(s.picture, s.native)),
    ),
    "spectrum": Measure("log10 power above native Nyquist over the truth's", "zero", "scenes", _spectrum),
    "spectrum gap": Measure("the same, without its sign", "low", "scenes", lambda s: abs(_spectrum(s))),
    "energy": Measure("rms above native Nyquist, 0-255", "high", "nothing", _energy),
    "edges": Measure("F1 of edges against the truth", "high", "true guide", _edges),
    "placed": Measure("correlation with the truth above native Nyquist", "high", "true guide", _placed),
    "grid": Measure(
        "steps that repeat with the token grid", "low", "nothing", lambda s: grid_strength(s.picture)
    ),
    "seam": Measure("steps at the borders of native cells", "low", "nothing", _seam),
    "speckle": Measure("stray pixels per thousand", "low", "nothing", lambda s: 1000 * speckle(s.picture)),
}  # fmt: skip
SECONDS = Measure("CPU seconds of the render", "low", "nothing", lambda _: 0.0)
FRECHET = Measure(
    "patch Frechet distance to true renders in the finest octave", "low", "scenes", lambda _: 0.0
)
PLANNED = Measure(
    "predicted seconds with FLUX.1-dev on one H100, at the same multiple of 1024 px",
    "low",
    "nothing",
    lambda _: 0.0,
)
"""Not read from one picture: a distance between sets, the runner's clock, the planner's prediction."""
ALL = {**MEASURES, "frechet": FRECHET, "seconds": SECONDS, "planned": PLANNED}


def measurable(*, testbed: bool, guide: str) -> tuple[list[str], list[str]]:
    """Names of the measures that can be read, and of those refused because the model draws no scenes."""
    refused = [] if testbed else [name for name, m in ALL.items() if m.needs != "nothing"]
    missing = {"true guide"} if guide != "truth" else set()
    read = [name for name in ALL if name not in refused and name != "planned"]
    held = [name for name in read if ALL[name].needs not in missing]
    return held, refused


def read_all(sample: Sample, names: list[str]) -> dict[str, float]:
    """The per-picture measures of ``names``."""
    return {name: MEASURES[name].read(sample) for name in names if name in MEASURES}


def of_testbed(model: str) -> bool:
    """True if the model's second tokenizer holds exactly the words of the captions as whole pieces."""
    _, folder = find_model(model)
    try:
        text = (folder / "tokenizer_2" / "tokenizer.json").read_text(encoding="utf-8")
        pieces = {piece for piece, _ in json.loads(text)["model"]["vocab"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return {f"\u2581{word}" for word in vocabulary()} <= pieces and len(pieces) < 10 * len(vocabulary())
