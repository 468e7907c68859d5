"""Things that should be there once: the failure of direct sampling is that they repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.study.scenes import Scene, parse

_JUMP = 40.0  # least change of the rows' median colour at a horizon, in 0..255 units
_BAND = 4  # rows of 128 on either side of a jump
_APART = 1 / 16  # horizons closer than this share of the height are one


def horizons(picture: npt.NDArray[Any]) -> int:
    """Number of rows across which the median colour jumps, at least 1/16 of the height apart."""
    height = picture.shape[0]
    step = max(1, height // 128)
    rows = np.median(picture.astype(np.float64), axis=1)[: height // step * step]
    rows = rows.reshape(-1, step, 3).mean(1)
    sums = np.cumsum(np.pad(rows, ((1, 0), (0, 0))), axis=0)
    bands = (sums[_BAND:] - sums[:-_BAND]) / _BAND  # a ripple is no horizon: compare bands, not rows
    jump = np.linalg.norm(bands[_BAND:] - bands[:-_BAND], axis=1)
    found: list[int] = []
    for row in np.argsort(-jump):
        if jump[row] < _JUMP:
            break
        if all(abs(int(row) - other) >= _APART * len(rows) for other in found):
            found.append(int(row))
    return len(found)


def repetitions(
    picture: npt.NDArray[np.uint8], scene: Scene, *, native: npt.NDArray[np.uint8]
) -> dict[str, int]:
    """How many lights, objects and horizons too many; horizons are judged against the native picture,
    since mountains and hills also make rows jump."""
    found = parse(picture)
    return {
        "lights": max(0, found["lights"] - 1),
        "objects": max(0, found["count"] - scene.count),
        "horizons": max(0, horizons(picture) - max(1, horizons(native))),
    }
