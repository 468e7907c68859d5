"""Split a picture at the native resolution's Nyquist frequency by area averaging."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue

Floats = npt.NDArray[np.float64]


def low_band(picture: npt.NDArray[Any], factor: int) -> Floats:
    """Means of ``factor`` x ``factor`` blocks, (H / factor, W / factor, C), float64.

    Raises BadValue if a side is not a multiple of ``factor``.
    """
    height, width = picture.shape[:2]
    if factor < 1 or height % factor or width % factor:
        raise BadValue(f"a {width}x{height} picture has no whole {factor}x{factor} blocks; crop it first")
    blocks = picture.astype(np.float64).reshape(height // factor, factor, width // factor, factor, -1)
    means: Floats = blocks.mean((1, 3))
    return means


def high_band(picture: npt.NDArray[Any], factor: int) -> Floats:
    """What the native resolution cannot hold: the picture minus its block means, smoothly enlarged."""
    low = low_band(picture, factor)
    return picture.astype(np.float64).reshape(*picture.shape[:2], -1) - enlarge(low, factor)


def enlarge(picture: Floats, factor: int) -> Floats:
    """Bilinear enlargement of (H, W, C), centres aligned."""
    for axis in (0, 1):
        size = picture.shape[axis]
        place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        first = np.minimum(place.astype(int), max(0, size - 2))
        share = (place - first).reshape([-1 if a == axis else 1 for a in range(picture.ndim)])
        near, far = picture.take(first, axis), picture.take(np.minimum(first + 1, size - 1), axis)
        picture = near + share * (far - near)
    return picture


def layout_agreement(picture: npt.NDArray[Any], native: npt.NDArray[Any]) -> float:
    """PSNR in dB (peak 255) of the area-averaged picture against the native one; inf if equal.

    Raises BadValue if the sides are not the same whole multiple of the native ones.
    """
    factor = picture.shape[0] // native.shape[0]
    if picture.shape[:2] != (native.shape[0] * factor, native.shape[1] * factor) or factor < 1:
        raise BadValue(
            f"layout: {picture.shape[:2]} is not a whole multiple of the native {native.shape[:2]}"
        )
    error = float(np.square(low_band(picture, factor) - native).mean())
    return float(np.inf) if error == 0 else float(10 * np.log10(255.0**2 / error))
