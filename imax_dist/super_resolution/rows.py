"""An enlarged picture row by row: what the network gives on the whole, with a part of it in memory.

Where it is known how far the network sees, its trunk runs on so many rows more than are wanted, and the
result is the whole picture's to rounding, however the rows are divided. A network of spandrel may see the
whole picture; it runs on tiles that overlap, the same ones however the rows are divided.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.super_resolution.network import EnlargingNetwork
from imax_dist.super_resolution.rrdb import RrdbNet

TILE = 256
"""Rows and columns of the picture that a network of spandrel is given at once."""
OVERLAP = 32
"""What it sees of the picture around a tile."""
TAIL_REACH = 4
"""Rows that the tail of an RRDBNet sees beyond a row of its input."""
TAIL_MAPS = 4
"""Maps of the enlarged size that the tail holds at its peak, about."""

EnlargedRows = Callable[[int, int], Tensor]
"""Rows [top, bottom) of the enlarged picture, (3, rows, width)."""


def enlarged_rows(
    network: EnlargingNetwork, pixels: Tensor, *, memory: int, ranks: int, each: Callable[[], None]
) -> EnlargedRows:
    """Of (1, 3, h, w) ``pixels`` in [0, 1]; rows are to be read from the top down.

    ``memory`` in bytes bounds what is held, but for the rows that the network sees anyway; ``ranks`` share
    the picture. ``each`` is called after every part and may raise.
    """
    if network.local is None:
        return _TiledRows(network, pixels, each)
    height, width = pixels.shape[2:]
    shrink, right = network.local.shrink, width * network.scale
    padded = F.pad(pixels, (0, -width % shrink, 0, -height % shrink), mode="replicate")
    rows = _LocalRows(network.local, padded, memory=memory, ranks=ranks, each=each)
    return lambda top, bottom: rows(top, bottom)[:, :, :right]


class _LocalRows:
    """The trunk's features of a block of rows, from which the tail makes a band at a time."""

    def __init__(
        self, network: RrdbNet, pixels: Tensor, *, memory: int, ranks: int, each: Callable[[], None]
    ) -> None:
        self._network, self._pixels, self._each = network, pixels, each
        self._height = pixels.shape[2]
        row = pixels.shape[3] * pixels.element_size()
        reach = network.trunk_reach
        fitting = memory // (row * network.held) - 2 * reach
        shared = -(-self._height // ranks) + 4 * TAIL_REACH
        whole = fitting >= self._height and ranks == 1
        block = self._height if whole else max(min(shared, fitting), reach)
        self._block = -(-block // network.shrink) * network.shrink
        self._band = max(1, memory // (row * TAIL_MAPS * network.conv_first.out_channels * network.scale**2))
        self._top = self._bottom = 0
        self._features: Tensor | None = None

    def __call__(self, top: int, bottom: int) -> Tensor:
        scale = self._network.scale
        first, last = top // scale, -(-bottom // scale)
        parts = [self._made(a, min(a + self._band, last)) for a in range(first, last, self._band)]
        made = torch.cat(parts, dim=1)
        return made[:, top - first * scale : bottom - first * scale]

    def _made(self, top: int, bottom: int) -> Tensor:
        """The enlarged rows of rows [top, bottom) of the picture."""
        above, below = max(top - TAIL_REACH, 0), min(bottom + TAIL_REACH, self._height)
        shrink = self._network.shrink
        above, below = above // shrink * shrink, min(-(-below // shrink) * shrink, self._height)
        if self._features is None or not (self._top <= above and below <= self._bottom):
            self._hold(above, max(below, min(above + self._block, self._height)))
        assert self._features is not None
        held = self._features[:, :, (above - self._top) // shrink : (below - self._top) // shrink]
        scale = self._network.scale
        made = self._network.tail(held)[0, :, (top - above) * scale :]
        self._each()
        return made[:, : (bottom - top) * scale]

    def _hold(self, top: int, bottom: int) -> None:
        network = self._network
        reach, shrink = network.trunk_reach, network.shrink
        first, last = max(top - reach, 0), min(bottom + reach, self._height)
        self._features = None
        features = network.trunk(self._pixels[:, :, first:last], self._each)
        kept = features[:, :, (top - first) // shrink : (bottom - first) // shrink]
        self._features = kept.clone() if kept.shape != features.shape else kept
        self._top, self._bottom = top, bottom


class _TiledRows:
    """Rows of tiles on a grid that depends on the picture alone; the last row of them is kept."""

    def __init__(self, network: EnlargingNetwork, pixels: Tensor, each: Callable[[], None]) -> None:
        self._network, self._pixels, self._each = network, pixels, each
        self._kept: dict[int, Tensor] = {}

    def __call__(self, top: int, bottom: int) -> Tensor:
        step = TILE * self._network.scale
        numbers = range(top // step, -(-bottom // step))
        self._kept = {n: self._kept[n] if n in self._kept else self._across(n * TILE) for n in numbers}
        made = torch.cat([self._kept[n] for n in numbers], dim=1)
        return made[:, top - numbers[0] * step : bottom - numbers[0] * step]

    def _across(self, top: int) -> Tensor:
        scale, width = self._network.scale, self._pixels.shape[3]
        rows = self._pixels[:, :, max(top - OVERLAP, 0) : top + TILE + OVERLAP]
        above = min(top, OVERLAP) * scale
        kept = min(TILE, self._pixels.shape[2] - top) * scale
        tiles = []
        for left in range(0, width, TILE):
            tile = self._network(rows[:, :, :, max(left - OVERLAP, 0) : left + TILE + OVERLAP])[0]
            beside = min(left, OVERLAP) * scale
            tiles.append(tile[:, above : above + kept, beside : beside + min(TILE, width - left) * scale])
            self._each()
        return torch.cat(tiles, dim=2)
