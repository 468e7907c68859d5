"""One finished poster on disk: the picture, the print files its request asks for, and its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.output.atomic import write_json
from imax_dist.output.image.bands import Bands, bands_of_array
from imax_dist.output.image.finish import check, finish, inherit
from imax_dist.output.image.labels import hash_of
from imax_dist.output.image.pixels import rounded, to_eight_bit
from imax_dist.output.image.png import write_hashed_png, write_png
from imax_dist.output.image.reader import Picture
from imax_dist.output.image.settings import FinishSettings, kind_of, read_outputs

if TYPE_CHECKING:
    from torch import Tensor

SHEET_FIELDS = ("paper", "dpi", "bleed", "landscape")


def recipe_path(path: Path) -> Path:
    """``sea.png`` -> ``sea.recipe.json``."""
    return path.with_suffix(".recipe.json")


def write_poster(path: Path, pixels: Tensor | Bands, recipe: dict[str, Any]) -> dict[str, Any]:
    """Write ``path`` (PNG, or a print file from the floats), the request's print files, and the recipe.

    ``pixels`` are (H, W, 3) floats in [0, 1], whole or in bands; bands are read once a file, and memory
    does not grow with their height. Returns the recipe with the hash of the pixels in 8 bits and a
    record of each print file. Raises CannotWrite or NoPermission; no file is left then.
    """
    bands = pixels if isinstance(pixels, Bands) else bands_of_array(pixels.float().numpy())
    written: list[Path] = []
    try:
        final = _main_file(path, bands, recipe, written)
        final |= _print_files(path, bands, final, written)
        write_json(recipe_path(path), final)
    except Exception:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return final


def write_native(path: Path, pixels: Tensor) -> None:
    """Write the native picture as a plain PNG, to be compared with the poster it guided."""
    write_png(path, to_eight_bit(pixels), {"of": path.name})


def require_printable(path: Path, request: Mapping[str, Any]) -> None:
    """Refuse before any work what could not be written at the end: kinds, bits, profiles, marks.

    ``request`` is a request as JSON values. Raises BadValue, BadConfig or MissingInput.
    """
    kind_of(path)
    for ending, settings in _outputs(request).items():
        check(path.with_suffix(f".{ending}"), settings)


def _main_file(path: Path, bands: Bands, recipe: dict[str, Any], written: list[Path]) -> dict[str, Any]:
    """Write the poster itself; returns its recipe with the hash of the pixels in 8 bits."""
    if kind_of(path) == "png":
        sheet = inherit(FinishSettings(), recipe).sheet()
        dpi = recipe.get("request", {}).get("dpi") or (sheet.dpi if sheet else None)
        digest = write_hashed_png(path, rounded(bands), recipe, dpi=dpi)
        written.append(path)
        return {**recipe, "pixels_sha256": digest}
    complete = {**recipe, "pixels_sha256": hash_of(rounded(bands))}
    record = finish(Picture(bands, None, complete), path, FinishSettings()).record
    written.append(path)
    return {**complete, "file": record}


def _print_files(path: Path, bands: Bands, recipe: dict[str, Any], written: list[Path]) -> dict[str, Any]:
    """Write what the request asks for besides, from the floats as well and not from the poster's file."""
    records = {}
    picture = Picture(bands, None, {name: fact for name, fact in recipe.items() if name != "file"})
    for ending, settings in _outputs({} if recipe.get("proof") else recipe.get("request", {})).items():
        out = path.with_suffix(f".{ending}")
        if out == path:
            out = path.with_name(f"{path.stem}-print.{ending}")
        records[out.name] = finish(picture, out, settings).record
        written.append(out)
    return {"files": records} if records else {}


def _outputs(request: Mapping[str, Any]) -> dict[str, FinishSettings]:
    sheet = {name: request.get(name) for name in SHEET_FIELDS}
    return read_outputs(request.get("output") or {}, sheet)
