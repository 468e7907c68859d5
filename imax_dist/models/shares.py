"""Which tokens of a pass are this rank's, and how the pieces become one again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imax_dist.models.base import TokenSequence
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.shapes import RopeTable


@dataclass(frozen=True)
class Shares:
    """One pass's tokens over the ranks of its sequence."""

    sequence: TokenSequence
    layout: JointLayout

    @classmethod
    def of(cls, sequence: TokenSequence, *, text_tokens: int, image_tokens: int) -> Shares:
        """``text_tokens`` counts every literal copy; 0 where the text is not in the sequence."""
        layout = JointLayout.of(
            text_tokens=text_tokens,
            image_tokens=image_tokens,
            ranks=sequence.mesh.size,
            text_replicated=sequence.text_replicated,
        )
        return cls(sequence, layout)

    @property
    def text_tokens(self) -> int:
        """Text tokens of the whole sequence."""
        return self.layout.text[0] if self.layout.text_replicated else sum(self.layout.text)

    def image(self, x: Tensor, *, dim: int) -> Tensor:
        """This rank's piece of an image-token tensor."""
        return shard(x, self.layout.image, self.sequence.mesh, dim=dim)

    def text(self, x: Tensor, *, dim: int) -> Tensor:
        """This rank's piece of a text-token tensor: all of it where text is replicated."""
        return x if self.layout.text_replicated else shard(x, self.layout.text, self.sequence.mesh, dim=dim)

    def tables(self, table: RopeTable) -> tuple[RopeTable, RopeTable]:
        """This rank's rows of the joint sequence's table: (text, image)."""
        lengths = [self.text_tokens, sum(self.layout.image)]
        parts = [part.split(lengths) for part in table]
        text = RopeTable(*(self.text(own, dim=0) for own, _ in parts))
        image = RopeTable(*(self.image(own, dim=0) for _, own in parts))
        return text, image

    def joint_table(self, table: RopeTable) -> RopeTable:
        """This rank's rows, text first, as its own tokens stand."""
        text, image = self.tables(table)
        return RopeTable(*(torch.cat(pair) for pair in zip(text, image, strict=True)))

    def gather(self, image: Tensor, *, dim: int) -> Tensor:
        """All ranks' image tokens; the same bits on every rank."""
        return gather(image, self.layout.image, self.sequence.mesh, dim=dim)
