"""Split a token sequence over the ranks, any length, and put it together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.parallel.collectives import all_gather_single
from imax_dist.parallel.mesh import SequenceMesh


def split_lengths(length: int, parts: int) -> tuple[int, ...]:
    """``length`` in ``parts`` pieces that differ by at most one, the longer ones first."""
    quotient, remainder = divmod(length, parts)
    return tuple(quotient + (part < remainder) for part in range(parts))


@dataclass(frozen=True)
class JointLayout:
    """Who holds which tokens of a joint text + image sequence; one entry a rank, in rank order.

    A rank's local sequence is its text tokens, then its image tokens. With ``text_replicated`` every
    rank holds the whole text, which still counts once in the softmax.
    """

    text: tuple[int, ...]
    image: tuple[int, ...]
    text_replicated: bool = False
    pictures: int = 1
    """Pictures whose tokens a rank holds one after the other: an editor's, beside the image."""

    @classmethod
    def of(
        cls,
        *,
        text_tokens: int,
        image_tokens: int,
        ranks: int,
        text_replicated: bool = False,
        pictures: int = 1,
    ) -> JointLayout:
        """Balanced pieces; of several ``pictures`` of so many tokens a rank holds the same piece of each.

        Raises BadConfig when there are fewer image tokens than ranks.
        """
        if image_tokens < ranks:
            raise BadConfig(
                f"parallel: {image_tokens} image tokens cannot be split over {ranks} ranks; start at most "
                f"{image_tokens}, or ask for a larger size"
            )
        text = (text_tokens,) * ranks if text_replicated else split_lengths(text_tokens, ranks)
        image = tuple(pictures * piece for piece in split_lengths(image_tokens, ranks))
        return cls(text=text, image=image, text_replicated=text_replicated, pictures=pictures)

    def without_text(self) -> JointLayout:
        """The image tokens alone, each where it is: for attention of the image to itself."""
        return replace(self, text=(0,) * len(self.image), text_replicated=False)

    @property
    def joint(self) -> tuple[int, ...]:
        return tuple(text + image for text, image in zip(self.text, self.image, strict=True))


def shard(x: Tensor, lengths: Sequence[int], mesh: SequenceMesh, *, dim: int) -> Tensor:
    """This rank's piece of ``x`` along ``dim``; ``lengths`` holds every rank's."""
    start = sum(lengths[: mesh.rank])
    return x.narrow(dim, start, lengths[mesh.rank])


def gather(x: Tensor, lengths: Sequence[int], mesh: SequenceMesh, *, dim: int) -> Tensor:
    """Every rank's piece joined along ``dim``; the same bits on every rank.

    Pieces are padded to the longest for the exchange and cut again, as gloo gathers equal sizes only.
    """
    if mesh.size == 1:
        return x
    longest = max(lengths)
    piece = x.movedim(dim, 0)
    padded = piece.new_zeros((longest, *piece.shape[1:]))
    padded[: piece.shape[0]] = piece
    pieces = padded.new_empty((mesh.size * longest, *piece.shape[1:]))
    with mesh.marks.waiting("the gathering of tokens"):
        all_gather_single(pieces, padded, mesh.group)
    kept = [pieces[rank * longest : rank * longest + length] for rank, length in enumerate(lengths)]
    return torch.cat(kept).movedim(0, dim)
