"""What the VAE by rows keeps in memory: the walk of models/autoencoder, with bytes instead of tensors.

Takes the same decisions in the same order as ``parallel/vae_rows`` and ``models/autoencoder/layers``: what is
stored, what is computed again, what goes to files. A test runs both and finds the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imax_dist.planner.autoencoder import Autoencoder
from imax_dist.vae.attention import KEY_ELEMENTS, QUERY_ELEMENTS
from imax_dist.vae.rows import FEWEST_ROWS
from imax_dist.vae.store import SEGMENT_BYTES
from imax_dist.vae.wide_heads import LOGITS, WIDEST_FLASH

WORKING = 3.0
"""Bands of a layer's input and output alive at once: read, normalised, convolved, and the same once more
where an inner map is computed again."""
MERGED_BYTES = 12.0
"""A query element in attention over the frame: merged output, part to be merged, difference, float32."""


@dataclass
class Room:
    """The memory of one rank's first tier: what the code counts as used, and what is really held at most."""

    limit: float
    used: float = 0.0
    most_used: float = 0.0
    peak: float = 0.0

    def keep(self, size: float, *sources: float) -> float:
        """Store a map if it fits, freeing ``sources`` on the way; the bytes it holds (0: in files)."""
        held = size if self.used + size <= self.limit else 0.0
        others, before = self.used - sum(sources), sum(sources)
        self.most_used = max(self.most_used, self.used + held)
        self.peak = max(self.peak, others + max(before, held) + min(SEGMENT_BYTES, before, held))
        self.used = others + held
        return held

    def settle(self, size: float, *, reserve: float, source: float = 0.0) -> float | None:
        """Store a map if there is room for it and ``reserve`` more; None if it is to be computed again."""
        if self.used + size + reserve > self.limit:
            return None
        return self.keep(size, source)


@dataclass(frozen=True)
class Picture:
    """An image on its way through one half: latent pixels, columns, ranks, bytes a number and a band."""

    latents: float
    columns: float
    ranks: int
    element: int
    band: int

    def map_bytes(self, channels: int, scale: int) -> float:
        """A rank's rows of a map; ``scale`` is its side in latent pixels' sides."""
        return self.element * channels * scale**2 * self.latents / self.ranks

    def band_bytes(self, channels: int, scale: int) -> float:
        """The rows of it that are worked on at a time."""
        row = self.element * channels * scale * self.columns
        return min(max(FEWEST_ROWS, self.band // row) * row, self.map_bytes(channels, scale))


def rows_bytes(vae: Autoencoder, half: str, picture: Picture, *, limit: float, pixels_here: bool) -> float:
    """Most bytes a rank holds for one half by rows, with ``limit`` bytes for the maps it keeps.

    ``pixels_here``: the finished picture counts against the same memory, as on a CPU.
    """
    room = walk(vae, half, picture, limit=limit, pixels_here=pixels_here)
    layers = vae.layers(half)
    working = max(
        picture.band_bytes(each.inputs, each.scale) + picture.band_bytes(each.outputs, each.scale)
        for each in layers
    )
    return room.peak + max(WORKING * working, _attention_bytes(vae, picture, on_gpu=not pixels_here))


def walk(vae: Autoencoder, half: str, picture: Picture, *, limit: float, pixels_here: bool) -> Room:
    """The maps of one half, one after the other."""
    room = Room(limit)
    held = 0.0
    for kind, channels, scale in _parts(vae, half):
        size = picture.map_bytes(channels, scale)
        if kind == "keep":
            held = room.keep(size, held)
        elif kind == "resnet":
            hidden = room.settle(size, reserve=size) or 0.0
            held = room.keep(size, hidden, held)
        else:
            found = room.settle(size, reserve=2 * size, source=held)
            held = held if found is None else found
    if half == "decoder" and pixels_here:
        pixels = 3 * 4.0 * vae.factor**2 * picture.latents  # rank 0 holds those of all
        room.keep(pixels, held)
    return room


def _parts(vae: Autoencoder, half: str) -> Iterator[tuple[str, int, int]]:
    """(how it is stored, channels, scale) of every map, in order."""
    last = vae.channels[-1]
    middle = ["resnet", *["keep"] * (vae.attention_width > 0), "resnet"]
    if half == "decoder":
        yield "keep", last, 1
        yield from ((kind, last, 1) for kind in middle)
        for level, width in enumerate(reversed(vae.channels)):
            yield from (("resnet", width, 2**level) for _ in range(vae.depth + 1))
            if level + 1 < len(vae.channels):
                yield "up", width, 2 ** (level + 1)
        return
    yield "keep", vae.channels[0], vae.factor
    for level, width in enumerate(vae.channels):
        yield from (("resnet", width, vae.factor // 2**level) for _ in range(vae.depth))
        if level + 1 < len(vae.channels):
            yield "keep", width, vae.factor // 2 ** (level + 1)
    yield from ((kind, last, 1) for kind in middle)


def _attention_bytes(vae: Autoencoder, picture: Picture, *, on_gpu: bool) -> float:
    """Queries in groups, keys and values in chunks, each twice where they travel a ring."""
    own = vae.attention_width * picture.latents / picture.ranks
    query = min(own, QUERY_ELEMENTS) * (picture.element + MERGED_BYTES)
    keys = min(2 * own, KEY_ELEMENTS) * picture.element
    logits = 0.0
    if (
        on_gpu and picture.element == 2 and vae.attention_width > WIDEST_FLASH
    ):  # float32, and the weights beside them
        logits = min(LOGITS, picture.latents**2 / picture.ranks) * (4.0 + picture.element)
    return query + keys * (2 if picture.ranks > 1 else 1) + logits
