"""The rows next to one's own, from whichever ranks hold them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from imax_dist.parallel.point_to_point import post
from imax_dist.vae.share import RowShare

OwnRows = Callable[[int, int], Tensor]
"""Rows [top, bottom) of this rank, in the picture's coordinates, (rows, ...)."""


def exchange_rows(own: OwnRows, share: RowShare, *, reach: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The ``reach`` rows above and below this rank's own; fewer at the picture's edges, none without rows.

    A neighbour with fewer rows than ``reach`` is no obstacle: the rest comes from the rank after it. All
    ranks must call this. ``like`` is an empty tensor (0, ...) of the rows' kind.
    """
    wanted = [_wanted(share, rank, reach) for rank in range(share.ranks)]
    received: list[list[Tensor]] = [[], []]
    sends: list[tuple[Tensor, int]] = []
    receives: list[tuple[Tensor, int]] = []
    for receiver in range(share.ranks):
        for side, (first, last) in enumerate(wanted[receiver]):
            for sender in range(share.ranks):
                top, bottom = max(first, share.starts[sender]), min(last, share.starts[sender + 1])
                if top >= bottom or share.rank not in (sender, receiver):
                    continue
                if share.rank == sender:
                    sends.append((own(top, bottom).contiguous(), receiver))
                else:
                    rows = like.new_empty((bottom - top, *like.shape[1:]))
                    receives.append((rows, sender))
                    received[side].append(rows)
    post(sends, receives, share.group).wait()
    above, below = (torch.cat([like, *rows]) for rows in received)
    return above, below


def _wanted(share: RowShare, rank: int, reach: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The rows above and below that ``rank`` lacks."""
    top, bottom = share.starts[rank], share.starts[rank + 1]
    if top == bottom:
        return (0, 0), (0, 0)
    return (max(top - reach, 0), top), (bottom, min(bottom + reach, share.height))
