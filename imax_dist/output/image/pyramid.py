"""Deep-zoom pyramids (DZI): a picture as tiles at every halving, made in one pass and bounded memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from imax_dist.errors import BadValue
from imax_dist.output.atomic import write_error
from imax_dist.output.image.bands import Bands
from imax_dist.output.image.dither import with_bits
from imax_dist.output.image.vips import save_file
from imax_dist.output.own_files import require_real_folder

TILE = 510
OVERLAP = 1
QUALITY = 88


def write_pyramid(folder: Path, bands: Bands) -> dict[str, Any]:
    """Write ``folder/<level>/<column>_<row>.jpg``; returns the tile source as a viewer takes it.

    The top level is the whole picture, each one below half of it, down to one pixel. What else lies in
    ``folder`` stays. Raises CannotWrite or NoPermission, BadValue for a link.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tiles-", dir=folder) as made:
            save_file(with_bits(bands, 8), _same, lambda image: image.dzsave(f"{made}/p", **_options()))
            for level in sorted(Path(made, "p_files").iterdir()):
                if level.is_dir():
                    _move(level, require_real_folder(folder / level.name))
    except OSError as error:
        raise write_error(folder, error) from error
    size = {"Width": bands.size.width, "Height": bands.size.height}
    return {"Format": "jpg", "Overlap": OVERLAP, "TileSize": TILE, "Size": size}


def _move(made: Path, level: Path) -> None:
    level.mkdir(exist_ok=True)
    for tile in made.iterdir():
        if (level / tile.name).is_symlink():
            raise BadValue(f"{level / tile.name} is a link, and nothing is written over links; remove it")
        tile.replace(level / tile.name)


def _same(image: Any) -> Any:
    return image


def _options() -> dict[str, Any]:
    return {"tile_size": TILE, "overlap": OVERLAP, "suffix": f".jpg[Q={QUALITY},keep=none]", "keep": "none"}
