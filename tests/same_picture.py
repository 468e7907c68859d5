"""Whether a poster made by several ranks is the one of a single process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.provenance import read_recipe


def same_picture(one: Path, other: Path, *, ranks: int) -> None:
    """Within one 8-bit step, the rounding of float32; and ``other`` was really made by that many ranks."""
    first, second = (read_pixels(path).astype(int) for path in (one, other))
    assert np.abs(first - second).max() <= 1
    around = read_recipe(other)["environment"]
    assert around["ulysses"] * around["ring"] == ranks
