"""Which rows of a block of keys are real, which are text, and the attention over just those.

Rows are contiguous pieces known on the host, so that picking them neither waits for the device nor needs
a mask; masks do not survive a ring.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.parallel.attention import PartialAttention, attend_partially, merge, weighted
from imax_dist.parallel.kernels import Kernel
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads, KeyHeads

Span = tuple[int, int]


class KeyPart(NamedTuple):
    """Rows [start, stop) of a block of keys, and how often each of them counts."""

    spans: tuple[Span, ...]
    weight: int = 1

    def of(self, x: KeyHeads) -> Tensor:
        """These rows of (B, rows, H, D): a view where they are one span, a copy where they are several."""
        if len(self.spans) == 1:
            start, stop = self.spans[0]
            return x[:, start:stop]
        return torch.cat([x[:, start:stop] for start, stop in self.spans], dim=1)


def key_parts(
    layout: JointLayout,
    ranks: Iterable[int],
    *,
    text_weight: int = 1,
    image_only: bool = False,
    padded_to: int | None = None,
) -> list[KeyPart]:
    """The parts of a block that holds the shards of ``ranks`` one after the other.

    Text apart from the image only if it counts differently. ``image_only``: the text is not in the block.
    ``padded_to``: every shard was lengthened to that many rows, whose surplus belongs to no part.
    """
    text: list[Span] = []
    image: list[Span] = []
    start = 0
    for rank in ranks:
        own = 0 if image_only else layout.text[rank]
        text.append((start, start + own))
        image.append((start + own, start + own + layout.image[rank]))
        start += own + layout.image[rank] if padded_to is None else padded_to
    if text_weight == 1:
        return [KeyPart(_joined(sorted(text + image)))]
    parts = [KeyPart(_joined(text), text_weight), KeyPart(_joined(image))]
    return [part for part in parts if part.spans]


def attend_parts(
    query: Heads,
    key: KeyHeads,
    value: KeyHeads,
    parts: list[KeyPart],
    *,
    merged: PartialAttention | None = None,
    kernel: Kernel | None = None,
) -> PartialAttention:
    """Attention over the ``parts`` of a block, added to what was ``merged`` before."""
    for part in parts:
        own = attend_partially(query, part.of(key), part.of(value), kernel=kernel)
        merged = merge(merged, weighted(own, part.weight))
    assert merged is not None
    return merged


def block_lengths(lengths: tuple[int, ...], mesh: SequenceMesh) -> list[int]:
    """Tokens at each place of the ring: the sum over its Ulysses ranks."""
    return [sum(lengths[rank] for rank in mesh.ulysses_ranks(i)) for i in range(mesh.ring)]


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    """Neighbouring spans as one, empty ones left out."""
    joined: list[Span] = []
    for start, stop in spans:
        if start == stop:
            continue
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)
