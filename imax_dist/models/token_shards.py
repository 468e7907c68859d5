"""The tokens of one pass over the ranks: which are this rank's, what is kept, how they are gathered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.cfg_execution import CfgExecution, two_passes
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import JointLayout, gather, shard
from imax_dist.shapes import RopeTable

T = TypeVar("T")


class PassCache:
    """Makes a thing once for the very objects it is made of; for other objects it is made again.

    Objects are compared by identity, never by value, so that no tensor is read. A place holds one thing and
    what it was made of, so that a table that changes with time takes the place of the one before.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Hashable, ...], tuple[tuple[object, ...], Any]] = {}

    def __call__(self, place: tuple[Hashable, ...], made_of: tuple[object, ...], make: Callable[[], T]) -> T:
        """The thing at ``place`` if it was made of these very objects, else what ``make`` gives."""
        before = self._made.get(place)
        if before is not None:
            objects, thing = before
            if len(objects) == len(made_of) and all(a is b for a, b in zip(objects, made_of, strict=True)):
                return thing  # type: ignore[no-any-return]
        made = make()
        self._made[place] = made_of, made
        return made


@dataclass(frozen=True)
class TokenSequence:
    """How one pass lays its tokens out: who computes which, and what they are."""

    mesh: SequenceMesh
    engine: AttentionEngine
    copies: TextCopies
    text_replicated: bool = False
    cfg_execution: CfgExecution = two_passes
    """How classifier-free guidance computes its two predictions."""
    cache: PassCache = field(default_factory=PassCache, compare=False, repr=False)
    """This rank's share of what stays the same in all steps of the pass: tables, text."""


@dataclass(frozen=True)
class TokenShards:
    """One pass's tokens over the ranks of its sequence."""

    sequence: TokenSequence
    layout: JointLayout
    pictures: int = 1
    """2 where an editor is shown a picture: its tokens, on the image's grid, follow the image's own."""

    @classmethod
    def of(
        cls, sequence: TokenSequence, *, text_tokens: int, image_tokens: int, pictures: int = 1
    ) -> TokenShards:
        """``text_tokens`` counts every literal copy; 0 where the text is not in the sequence."""
        layout = JointLayout.of(
            text_tokens=text_tokens,
            image_tokens=image_tokens,
            ranks=sequence.mesh.size,
            text_replicated=sequence.text_replicated,
            pictures=pictures,
        )
        return cls(sequence, layout, pictures)

    @classmethod
    def joint(
        cls, sequence: TokenSequence, prompt: Tensor, *, image_tokens: int, pictures: int = 1
    ) -> TokenShards:
        """Of a joint sequence with every literal copy of a prompt (B, T, C)."""
        text_tokens = prompt.shape[1] * sequence.copies.literal
        return cls.of(sequence, text_tokens=text_tokens, image_tokens=image_tokens, pictures=pictures)

    @property
    def pieces(self) -> tuple[int, ...]:
        """Every rank's tokens of the image."""
        return tuple(piece // self.pictures for piece in self.layout.image)

    @property
    def text_tokens(self) -> int:
        """Text tokens of the whole sequence."""
        return self.layout.text[0] if self.layout.text_replicated else sum(self.layout.text)

    def image(self, x: Tensor, *, dim: int) -> Tensor:
        """This rank's piece of an image-token tensor."""
        return shard(x, self.pieces, self.sequence.mesh, dim=dim)

    def beside(self, image: Tensor, context: Tensor | None, pack: Callable[[Tensor], Tensor]) -> Tensor:
        """This rank's image tokens (B, N, C), then those of ``context``, which ``pack`` makes of its latents;
        made once a pass."""
        if context is None:
            return image
        place = "context", *context.shape
        shown = self.sequence.cache(place, (context,), lambda: self.image(pack(context), dim=1))
        return torch.cat([image, shown.expand(image.shape[0], -1, -1)], dim=1)

    def text(self, x: Tensor, *, dim: int) -> Tensor:
        """This rank's piece of a text-token tensor: all of it where text is replicated."""
        return x if self.layout.text_replicated else shard(x, self.layout.text, self.sequence.mesh, dim=dim)

    def copies(self, prompt: Tensor) -> Tensor:
        """This rank's piece of a prompt's tokens (B, T, C) with every literal copy; made once a pass."""
        copies = self.sequence.copies.literal
        return self.sequence.cache(
            ("copies", id(prompt)), (prompt,), lambda: self.text(prompt.repeat(1, copies, 1), dim=1)
        )

    def changing_copies(self, prompt: Tensor) -> Tensor:
        """The same of a prompt that every step makes again: nothing is kept."""
        copies = self.sequence.copies.literal
        return self.text(prompt[:, None].expand(-1, copies, -1, -1).flatten(1, 2), dim=1)

    def tables(self, table: RopeTable) -> tuple[RopeTable, RopeTable]:
        """This rank's rows of the joint sequence's table: (text, image)."""
        return self.cached_by_table("tables", table, lambda: self._tables(table))

    def _tables(self, table: RopeTable) -> tuple[RopeTable, RopeTable]:
        lengths = [self.text_tokens, *[sum(self.pieces)] * self.pictures]
        parts = [part.split(lengths) for part in table]
        text = RopeTable(*(self.text(own, dim=0) for own, *_ in parts))
        image = RopeTable(*(torch.cat([self.image(one, dim=0) for one in own]) for _, *own in parts))
        return text, image

    def cached_by_table(self, name: str, table: RopeTable, make: Callable[[], T]) -> T:
        """What ``make`` makes of ``table``, as long as a sequence of these lengths has the same table."""
        lengths = self.text_tokens, sum(self.layout.image)
        return self.sequence.cache((name, *lengths), (table,), make)

    def joint_table(self, table: RopeTable) -> RopeTable:
        """This rank's rows, text first, as its own tokens stand."""

        def join() -> RopeTable:
            return RopeTable(*(torch.cat(pair) for pair in zip(*self.tables(table), strict=True)))

        return self.cached_by_table("joint table", table, join)

    @property
    def attention(self) -> dict[str, Any]:
        """What JointProcessor takes with each call."""
        weight = self.sequence.copies.weight
        return {"engine": self.sequence.engine, "layout": self.layout, "text_weight": weight}

    def gather(self, image: Tensor, *, dim: int) -> Tensor:
        """All ranks' image tokens; the same bits on every rank."""
        own = image.narrow(dim, 0, self.pieces[self.sequence.mesh.rank])
        return gather(own, self.pieces, self.sequence.mesh, dim=dim)
