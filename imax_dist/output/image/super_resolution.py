"""The last mile by a super-resolution network that the user has (any that spandrel loads), in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imax_dist.errors import BadManifest, BadValue, MissingInput
from imax_dist.geometry import ImageSize
from imax_dist.named_file import plain_size
from imax_dist.output.image.bands import Band, Bands, rebanded, to_unit

TILE = 256
HALO = 32
"""Pixels around a tile that the network sees and that are cut off again."""

Pixels = npt.NDArray[np.float32]


def require_model(path: Path) -> None:
    """Refuse before any work. Raises BadValue for a pickle or another word, MissingInput."""
    if path.suffix != ".safetensors":
        raise BadValue(
            f"scale {str(path)!r} is neither lanczos nor a .safetensors file; pickled models are not read"
        )
    if plain_size(path, "super-resolution model") is None:
        raise MissingInput(f"super-resolution model {path} does not exist")
    _library()


def enlarged(bands: Bands, path: Path) -> tuple[Bands, str]:
    """The picture as many times larger as the network makes it, and the network's name for the recipe.

    Raises BadManifest if the file is no network that takes and gives RGB.
    """
    require_model(path)
    model = _load(path)
    factor = int(model.scale)
    size = ImageSize(bands.size.width * factor, bands.size.height * factor)
    name = f"{model.architecture.name} {path.name}, then lanczos"
    return Bands(size, 3, 32, lambda: _rows(bands, model, factor)), name


def _load(path: Path) -> Any:
    spandrel = _library()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model = spandrel.ModelLoader().load_from_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError, ValueError, spandrel.UnsupportedModelError) as error:
        raise BadManifest(f"{path} is not a super-resolution model that can be used: {error}") from error
    if model.input_channels != 3 or model.output_channels != 3:
        raise BadManifest(f"{path} does not take and give RGB pictures")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def _rows(bands: Bands, model: Any, factor: int) -> Iterator[Band]:
    """Each band with a halo of the rows before and after it; beyond the picture its edge is mirrored."""
    source = (to_unit(band) for band in rebanded(bands, TILE))
    before: Pixels | None = None
    current = next(source)
    while True:
        after = next(source, None)
        above = current[1 : HALO + 1][::-1] if before is None else before[-HALO:]
        below = current[-HALO - 1 : -1][::-1] if after is None else after[:HALO]
        joined = np.concatenate([above, current, below])
        yield _across(joined, model, factor)[len(above) * factor :][: len(current) * factor]
        if after is None:
            return
        before, current = current, after


def _across(rows: Pixels, model: Any, factor: int) -> Pixels:
    width = rows.shape[1]
    halo = min(HALO, width - 1)
    padded = np.pad(rows, ((0, 0), (halo, halo), (0, 0)), mode="reflect")
    tiles = []
    for left in range(0, width, TILE):
        kept = min(TILE, width - left)
        tile = padded[:, left : left + kept + 2 * halo]
        tiles.append(_enlarge(tile, model)[:, halo * factor : (halo + kept) * factor])
    return np.concatenate(tiles, axis=1)


@torch.no_grad()
def _enlarge(tile: Pixels, model: Any) -> Pixels:
    batch = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None].to(model.device)
    result: Pixels = model(batch).clamp(0.0, 1.0)[0].float().cpu().numpy().transpose(1, 2, 0)
    return result


def _library() -> Any:
    try:
        import spandrel  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise MissingInput("super-resolution models need spandrel; pip install spandrel") from error
    except (RuntimeError, OSError) as error:
        raise MissingInput(
            f"spandrel cannot be loaded ({error}); install the torchvision that belongs to torch "
            f"{torch.__version__}"
        ) from error
    return spandrel
