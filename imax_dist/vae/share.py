"""Who holds which rows of a picture or feature map: contiguous, in rank order, at every scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch.distributed as dist

from imax_dist.parallel.sequence import split_lengths


@dataclass(frozen=True)
class RowShare:
    """Rank r holds rows ``starts[r]`` to ``starts[r + 1]``; the last entry is the height.

    Ranks beyond the rows there are hold none; they are always the last ones. ``group`` is None on one rank.
    """

    starts: tuple[int, ...]
    rank: int = 0
    group: dist.ProcessGroup | None = None

    @classmethod
    def of(
        cls,
        rows: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        group: dist.ProcessGroup | None = None,
        unit: int = 1,
        height: int | None = None,
    ) -> RowShare:
        """Balanced pieces of ``rows`` x ``unit``; what ``height`` has beyond goes to the last with rows."""
        starts = [0]
        for length in split_lengths(rows, ranks):
            starts.append(starts[-1] + length * unit)
        end = starts[-1]
        return cls(tuple((height or end) if start == end else start for start in starts), rank, group)

    @property
    def height(self) -> int:
        return self.starts[-1]

    @property
    def top(self) -> int:
        return self.starts[self.rank]

    @property
    def bottom(self) -> int:
        return self.starts[self.rank + 1]

    @property
    def ranks(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Rows of every rank."""
        return tuple(b - a for a, b in zip(self.starts, self.starts[1:], strict=False))

    @cached_property
    def most(self) -> int:
        """Rows of the rank that holds most: what all ranks decide by, so that they decide alike."""
        return max(self.counts)

    def doubled(self) -> RowShare:
        """After an upsampling by 2."""
        return replace(self, starts=tuple(2 * start for start in self.starts))

    def halved(self) -> RowShare:
        """After a downsampling by 2 that drops an odd last row."""
        return replace(self, starts=tuple(start // 2 for start in self.starts))
