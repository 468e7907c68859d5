"""Detail in the right place: agreement with the true render of the same scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.study.metrics.bands import high_band
from imax_dist.study.scenes.regions import Mask, grow


@dataclass(frozen=True)
class EdgeMatch:
    """Share of drawn edges that are true, of true edges that are drawn, and their harmonic mean."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean; 0 where both are 0."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def edge_map(picture: npt.NDArray[Any], *, threshold: float = 40.0) -> Mask:
    """Where the Sobel gradient of the luma exceeds ``threshold`` (0..255 units a pixel, scaled by 1/4)."""
    luma = np.pad(picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114]), 1, mode="edge")
    down = luma[2:] - luma[:-2]
    right = luma[:, 2:] - luma[:, :-2]
    gy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    gx = right[:-2] + 2 * right[1:-1] + right[2:]
    edges: Mask = np.hypot(gx, gy) / 4 > threshold
    return edges


def match_edges(picture: npt.NDArray[Any], truth: npt.NDArray[Any], *, slack: int = 1) -> EdgeMatch:
    """Edges of both pictures matched within ``slack`` pixels (the boundary measure of Martin et al.,
    TPAMI 2004, with a city-block tolerance instead of an assignment)."""
    drawn, true = edge_map(picture), edge_map(truth)
    precision = float((drawn & grow(true, slack)).sum() / max(1, drawn.sum()))
    recall = float((true & grow(drawn, slack)).sum() / max(1, true.sum()))
    return EdgeMatch(precision, recall)


def detail_correlation(picture: npt.NDArray[Any], truth: npt.NDArray[Any], *, factor: int) -> float:
    """Correlation of the bands above native Nyquist: 1 the true detail, 0 unrelated detail."""
    ours, theirs = high_band(picture, factor), high_band(truth, factor)
    size = float(np.sqrt(np.square(ours).sum() * np.square(theirs).sum()))
    return float((ours * theirs).sum()) / size if size else 0.0
