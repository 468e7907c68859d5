"""Does the large picture keep the native one's layout? PSNR of its low band against the native."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.study.metrics.bands import low_band


def layout_agreement(picture: npt.NDArray[Any], native: npt.NDArray[Any]) -> float:
    """PSNR in dB (peak 255) of the area-averaged picture against the native one; inf if equal.

    Raises BadValue if the sides are not the same whole multiple of the native ones.
    """
    factor = picture.shape[0] // native.shape[0]
    if picture.shape[:2] != (native.shape[0] * factor, native.shape[1] * factor) or factor < 1:
        raise BadValue(f"layout: {picture.shape[:2]} is no whole multiple of the native {native.shape[:2]}")
    error = float(np.square(low_band(picture, factor) - native).mean())
    return float(np.inf) if error == 0 else float(10 * np.log10(255.0**2 / error))
