"""One finished poster on disk: the picture, and its recipe beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from imax_dist.output.atomic import write_json
from imax_dist.output.pixels import pixels_hash, to_eight_bit
from imax_dist.output.png import write_png


def recipe_path(path: Path) -> Path:
    """``sea.png`` -> ``sea.recipe.json``."""
    return path.with_suffix(".recipe.json")


def write_poster(path: Path, pixels: Tensor, recipe: dict[str, Any]) -> dict[str, Any]:
    """Write ``path`` (PNG) and its recipe; returns the recipe with the hash of the pixels.

    ``pixels`` are (H, W, 3) floats in [0, 1]. Raises CannotWrite or NoPermission; no half file is left.
    """
    image = to_eight_bit(pixels)
    complete = {**recipe, "pixels_sha256": pixels_hash(image)}
    write_png(path, image, complete)
    try:
        write_json(recipe_path(path), complete)
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return complete
