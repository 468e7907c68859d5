"""Text duplication: the prompt is repeated once per native-sized cell of the target. Sec. 2.3, item 4.

For joint-attention models only (FLUX.1): otherwise a few hundred text tokens drown among tens of
thousands of image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch

from imax_dist.geometry import TokenGrid
from imax_dist.shapes import PositionIds


class TextCopies(NamedTuple):
    """Where the copies sit, and how many a single copy stands for.

    ``offsets`` are (row, column) positions in tokens, one per literal copy. ``weight`` n means: each
    text key counts n times in the softmax (its log-sum-exp gets + log n), exact for n copies with equal
    ids. METHOD.md, "shared copies".
    """

    offsets: tuple[tuple[int, int], ...]
    weight: int = 1

    @property
    def literal(self) -> int:
        return len(self.offsets)


ORIGIN = TextCopies(offsets=((0, 0),))
"""The prompt once, where it was trained."""

CopyRule: TypeAlias = Callable[[TokenGrid, TokenGrid], TextCopies]


def cells(target: TokenGrid, native: TokenGrid) -> tuple[int, int]:
    """How many whole native-sized cells fit along height and width, at least one each.

    The cell is ``native``'s own height and width: for a square image the authors' 64 x 64.
    """
    return max(1, target.height // native.height), max(1, target.width // native.width)


def one(target: TokenGrid, native: TokenGrid) -> TextCopies:
    """The prompt once, at the origin, as trained."""
    del target, native
    return TextCopies(offsets=((0, 0),))


def grid(target: TokenGrid, native: TokenGrid) -> TextCopies:
    """One copy per cell (i, j), at position (i native.height, j native.width)."""
    rows, columns = cells(target, native)
    offsets = ((i * native.height, j * native.width) for i in range(rows) for j in range(columns))
    return TextCopies(offsets=tuple(offsets))


def shared(target: TokenGrid, native: TokenGrid) -> TextCopies:
    """As many copies as ``grid``, all at the origin: one copy that counts that often."""
    rows, columns = cells(target, native)
    return TextCopies(offsets=((0, 0),), weight=rows * columns)


def text_position_ids(tokens: int, copies: TextCopies) -> PositionIds:
    """Ids (copies x tokens, 3) of the text: (0, row, column) of the copy each token belongs to."""
    offsets = torch.tensor(copies.offsets, dtype=torch.float64)
    ids = torch.cat([torch.zeros(len(offsets), 1, dtype=torch.float64), offsets], dim=1)
    return ids.repeat_interleave(tokens, dim=0)


COPY_RULES: dict[str, CopyRule] = {"none": one, "grid": grid, "shared": shared}
