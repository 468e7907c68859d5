"""Attention of every pixel of a feature map to every other, rows over ranks, in bounded memory.

Keys and values travel the ring in chunks, queries are taken in groups: no tensor grows with the picture's
area beyond what a rank holds anyway, and none reaches 2^31 elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from imax_dist.parallel.attention import PartialAttention, attend_partially, merge
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.ring import rotate
from imax_dist.parallel.sequence import split_lengths
from imax_dist.shapes import Heads
from imax_dist.vae.blocks import BlockSizes
from imax_dist.vae.share import RowShare
from imax_dist.vae.wide_heads import wide_kernel


class Projections(NamedTuple):
    """Rows [top, bottom) as heads (1, tokens, H, D), of this rank's own rows."""

    query: Callable[[int, int], Heads]
    key_value: Callable[[int, int], tuple[Heads, Heads]]


def frame_attention(
    projections: Projections, share: RowShare, *, width: int, channels: int, sizes: BlockSizes
) -> Iterator[tuple[int, int, Tensor]]:
    """(top, bottom, attention of these rows) until all own rows are done; every rank that has rows joins.

    Each group of queries sees every key once; with more than one group, keys are projected and sent again.
    """
    counts = tuple(count for count in share.counts if count)
    if share.rank >= len(counts):
        return
    mesh = SequenceMesh(
        ulysses=1, ring=len(counts), rank=share.rank, ring_group=share.group, group=share.group
    )
    groups = math.ceil(max(counts) * width * channels / sizes.query_elements)
    chunks = min(math.ceil(2 * max(counts) * width * channels / sizes.key_elements), *counts)
    pieces = [split_lengths(count, chunks) for count in counts]
    top = share.top
    for rows in split_lengths(counts[share.rank], groups):
        merged: PartialAttention | None = None
        query = projections.query(top, top + rows) if rows else None
        kernel = None if query is None else wide_kernel(query)
        start = share.top
        for chunk in range(chunks):
            key, value = projections.key_value(start, start + pieces[share.rank][chunk])
            start += pieces[share.rank][chunk]
            for _, k, v in rotate(key, value, [piece[chunk] * width for piece in pieces], mesh):
                if query is not None:
                    merged = merge(merged, attend_partially(query, k, v, kernel=kernel))
        if query is not None and merged is not None:
            yield top, top + rows, merged.output.to(query.dtype)
            top += rows
