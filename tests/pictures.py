"""Small pictures, recipes and labels that the print tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from imax_dist.output.image.bands import Band, bands_of_array
from imax_dist.output.image.png import write_png
from imax_dist.output.image.profile import Profile, parse_profile
from imax_dist.output.image.reader import Picture

PROMPT = "été <am> Meer & 海 \x07 sun"
RECIPE: dict[str, Any] = {
    "format": "imax-recipe/1",
    "request": {"prompt": PROMPT, "seed": 3},
    "plan": {"size": "300x200"},
}


def gradient(height: int, width: int, bits: int = 8) -> Band:
    """Smooth, not symmetric, every channel another; the last column and row stand out."""
    rows, columns = np.mgrid[:height, :width]
    waves = 0.5 + 0.5 * np.sin(rows * columns / 900)
    unit = np.stack([rows / height, columns / width, waves], axis=-1)
    unit[-1], unit[:, -1] = (1, 0, 0), (0, 1, 0)
    return np.rint(unit * (2**bits - 1)).astype(f"u{bits // 8}")


def picture(height: int = 200, width: int = 300, bits: int = 8, **request: Any) -> Picture:
    """A picture in memory with a recipe whose request has the fields of ``request``."""
    recipe = {**RECIPE, "request": {**RECIPE["request"], **request}}
    return Picture(bands_of_array(gradient(height, width, bits)), None, recipe)


def png_poster(path: Path, height: int = 200, width: int = 300, **request: Any) -> Path:
    """A PNG as `imax generate` writes it, hash left out."""
    recipe = {**RECIPE, "request": {**RECIPE["request"], **request}}
    write_png(path, gradient(height, width), recipe)
    return path


def cmyk_profile(path: Path) -> Path:
    """libvips' public-domain CMYK profile as a file."""
    converted = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb").icc_transform("cmyk")
    path.write_bytes(converted.get("icc-profile-data"))
    return path


def profile_in(path: Path) -> Profile:
    """The profile of an ICC file."""
    return parse_profile(path.read_bytes(), where=path.name)


def names(folder: Path) -> list[str]:
    """All that lies in a folder, temp files included."""
    return sorted(entry.name for entry in folder.iterdir())
