"""Detail above the native Nyquist frequency against the truth's: radially averaged power spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue

Floats = npt.NDArray[np.float64]


def radial_power(picture: npt.NDArray[Any], *, bins: int = 32) -> Floats:
    """Mean power of the luma by distance from zero frequency, (bins,), up to 0.5 cycles a pixel.

    A Hann window keeps the picture's borders out of it.
    """
    luma = picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    window = np.outer(np.hanning(luma.shape[0]), np.hanning(luma.shape[1]))
    power = np.abs(np.fft.rfft2((luma - luma.mean()) * window)) ** 2 / luma.size
    fy, fx = np.fft.fftfreq(luma.shape[0])[:, None], np.fft.rfftfreq(luma.shape[1])[None]
    index = np.minimum((np.hypot(fy, fx) * 2 * bins).astype(int), bins)
    sums = np.bincount(index.ravel(), power.ravel(), bins + 1)[:bins]
    counts = np.bincount(index.ravel(), minlength=bins + 1)[:bins]
    means: Floats = sums / np.maximum(counts, 1)
    return means


def detail_against_truth(picture: npt.NDArray[Any], truth: npt.NDArray[Any], *, factor: int) -> float:
    """Mean log10 ratio of power to the truth's above native Nyquist, 0.5 / ``factor`` cycles a pixel:
    0 as much detail, -1 a tenth, above 0 more than there should be.

    Raises BadValue if the sizes differ.
    """
    if picture.shape != truth.shape:
        raise BadValue(f"spectrum: shapes {picture.shape} and {truth.shape} differ; render the same size")
    ours, theirs = radial_power(picture), radial_power(truth)
    above = slice(len(ours) // factor, None)
    return float(np.mean(np.log10((ours[above] + 1e-6) / (theirs[above] + 1e-6))))
