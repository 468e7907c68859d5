"""Detectors of what a viewer minds most: a token grid, seams, speckle. All 0 on a clean picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue

Floats = npt.NDArray[np.float64]
_LUMA = np.array([0.299, 0.587, 0.114])


def grid_strength(picture: npt.NDArray[Any], *, period: int = 16) -> float:
    """How much the steps between pixels repeat with the token grid, in both directions: the typical step
    at the strongest phase over the median phase's, minus 1. Medians, so that one horizon is not a grid."""
    luma = picture.astype(np.float64) @ _LUMA
    return max(_phase_excess(np.abs(np.diff(luma, axis=axis)), axis, period) for axis in (0, 1))


def _phase_excess(steps: Floats, axis: int, period: int) -> float:
    profile = np.median(steps, axis=1 - axis) + 0.05  # the median ignores edges of objects
    phases = np.array([np.median(profile[phase::period]) for phase in range(period)])
    return float(phases.max() / np.median(phases) - 1)


def seam_strength(picture: npt.NDArray[Any], rows: Sequence[int]) -> float:
    """Median step across the given rows (between ``row - 1`` and ``row``) over that of their
    neighbours, minus 1; the largest of the rows. Raises BadValue for a row at the border."""
    luma = picture.astype(np.float64) @ _LUMA
    steps = np.median(np.abs(np.diff(luma, axis=0)), axis=1) + 0.05
    if any(not 3 <= row <= len(luma) - 3 for row in rows):
        raise BadValue(f"seam: rows {list(rows)} must lie 3 pixels inside a picture of {len(luma)} rows")
    around = [np.median([steps[row - 1 + k] for k in (-2, -1, 1, 2)]) for row in rows]
    excess = [float(steps[row - 1] / near - 1) for row, near in zip(rows, around, strict=True)]
    return max(excess, default=0.0)


def speckle(picture: npt.NDArray[Any], *, threshold: float = 24.0) -> float:
    """Share of pixels that stand out from their 3 x 3 median where the surroundings are smooth."""
    luma = picture.astype(np.float64) @ _LUMA
    padded = np.pad(luma, 1, mode="edge")
    views = [padded[i : i + luma.shape[0], j : j + luma.shape[1]] for i in range(3) for j in range(3)]
    stack = np.sort(np.stack(views), axis=0)
    smooth = stack[6] - stack[2] < 0.5 * threshold
    return float((smooth & (np.abs(luma - stack[4]) > threshold)).mean())
