"""The last mile by a super-resolution network, in tiles of a print's bands."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from imax_dist.geometry import ImageSize
from imax_dist.output.image.bands import Band, Bands, rebanded, to_unit
from imax_dist.super_resolution.network import EnlargingNetwork, file_of_network, network_of, read_weights

TILE = 256
HALO = 32
"""Pixels around a tile that the network sees and that are cut off again."""

Pixels = npt.NDArray[np.float32]


def require_model(name: str) -> None:
    """Refuse before any work. Raises what ``file_of_network`` raises, BadManifest for no network of RGB."""
    file_of_network(name)
    network_of(name, read_weights(name))


def enlarged(bands: Bands, name: str) -> tuple[Bands, str]:
    """The picture as many times larger as the network makes it, and the network's name for the recipe.

    Raises as ``require_model``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network_of(name, read_weights(name)).to(device, torch.float32)
    size = ImageSize(bands.size.width * network.scale, bands.size.height * network.scale)
    return Bands(size, 3, 32, lambda: _rows(bands, network, device)), f"{network.name}, then lanczos"


def _rows(bands: Bands, network: EnlargingNetwork, device: torch.device) -> Iterator[Band]:
    """Each band with a halo of the rows before and after it; beyond the picture its edge is mirrored."""
    source = (to_unit(band) for band in rebanded(bands, TILE))
    before: Pixels | None = None
    current = next(source)
    factor = network.scale
    while True:
        after = next(source, None)
        above = current[1 : HALO + 1][::-1] if before is None else before[-HALO:]
        below = current[-HALO - 1 : -1][::-1] if after is None else after[:HALO]
        joined = np.concatenate([above, current, below])
        yield _across(joined, network, device)[len(above) * factor :][: len(current) * factor]
        if after is None:
            return
        before, current = current, after


def _across(rows: Pixels, network: EnlargingNetwork, device: torch.device) -> Pixels:
    width, factor = rows.shape[1], network.scale
    halo = min(HALO, width - 1)
    padded = np.pad(rows, ((0, 0), (halo, halo), (0, 0)), mode="reflect")
    tiles = []
    for left in range(0, width, TILE):
        kept = min(TILE, width - left)
        tile = padded[:, left : left + kept + 2 * halo]
        tiles.append(_enlarge(tile, network, device)[:, halo * factor : (halo + kept) * factor])
    return np.concatenate(tiles, axis=1)


@torch.no_grad()
def _enlarge(tile: Pixels, network: EnlargingNetwork, device: torch.device) -> Pixels:
    batch = torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)))[None].to(device)
    result: Pixels = network(batch).clamp(0.0, 1.0)[0].float().cpu().numpy().transpose(1, 2, 0)
    return result
