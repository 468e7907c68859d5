"""Ulysses: trade a piece of the sequence with all heads for all the sequence with a piece of the heads.

DeepSpeed-Ulysses, arXiv 2309.14509. Pieces may have different lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from imax_dist.liveness.beacon import Marks
from imax_dist.parallel.collectives import all_gather_single
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.shapes import Heads, KeyHeads


class Piece(NamedTuple):
    """One of several pieces of every rank's heads, which travel one after the other."""

    number: int = 0
    of: int = 1

    def bounds(self, share: int, keys: int) -> tuple[int, int]:
        """Of a rank's ``share`` of heads, in whole groups of the queries that share one of its ``keys``."""
        group = share // keys
        return group * (keys * self.number // self.of), group * (keys * (self.number + 1) // self.of)


WHOLE = Piece()
"""All heads at once."""


class Arriving(NamedTuple):
    """Queries, keys and values on their way to the ranks that have their heads."""

    qkv: Tensor
    """(the group's tokens, B, heads of all three, D), once they are there."""
    shares: tuple[int, ...]
    work: dist.Work
    sent: Tensor
    """Kept until then."""
    marks: Marks

    def wait(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, the group's tokens, H / ulysses, D) each, tokens in rank order."""
        with self.marks.waiting("the exchange of heads"):
            self.work.wait()
        q, k, v = self.qkv.transpose(0, 1).split(self.shares, dim=2)
        return q, k, v


class Here(NamedTuple):
    """The same where nothing has to travel."""

    qkv: tuple[Tensor, Tensor, Tensor]

    def wait(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.qkv


def send_qkv(
    qkv: tuple[Tensor, Tensor, Tensor], lengths: Sequence[int], mesh: SequenceMesh, piece: Piece = WHOLE
) -> Arriving | Here:
    """Send (B, own tokens, H, D) each on their way to (B, the group's tokens, H / ulysses, D) each.

    ``lengths`` are the token counts of the ranks of this Ulysses group; the degree divides the heads of each.
    All three go in one exchange, each written once, where it leaves from; of every rank's heads only those
    of ``piece``. What is computed before ``wait`` is computed while they travel.
    """
    if mesh.ulysses == 1:
        return Here(qkv)
    batch, own, _, head_dim = qkv[0].shape
    keys = qkv[1].shape[2] // mesh.ulysses
    bounds = [piece.bounds(x.shape[2] // mesh.ulysses, keys) for x in qkv]
    shares = tuple(stop - start for start, stop in bounds)
    outgoing = qkv[0].new_empty((mesh.ulysses, own, batch, sum(shares), head_dim))
    for place, x, (start, stop) in zip(outgoing.split(shares, dim=3), qkv, bounds, strict=True):
        place.copy_(x.unflatten(2, (mesh.ulysses, -1))[:, :, :, start:stop].permute(2, 1, 0, 3, 4))
    incoming = outgoing.new_empty((sum(lengths), *outgoing.shape[2:]))
    work = dist.all_to_all_single(
        incoming,
        outgoing.flatten(0, 1),
        output_split_sizes=list(lengths),
        input_split_sizes=[own] * mesh.ulysses,
        group=mesh.ulysses_group,
        async_op=True,
    )
    assert work is not None
    return Arriving(incoming, shares, work, outgoing, mesh.marks)


def divisible_heads(x: KeyHeads, mesh: SequenceMesh) -> Tensor:
    """Grouped keys or values, each head repeated until the Ulysses degree divides their number.

    (B, S, H_kv, D) -> (B, S, lcm(H_kv, ulysses), D): nothing is repeated where the degree divides H_kv.
    """
    repeats = mesh.ulysses // math.gcd(mesh.ulysses, x.shape[2])
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=2)


class Returning(NamedTuple):
    """An output on its way back to the ranks that have its tokens."""

    by_rank: Tensor
    """(ulysses, own tokens, B, heads, D), once it is there."""
    work: dist.Work
    sent: Tensor
    """Kept until then."""
    marks: Marks

    def wait(self) -> Tensor:
        """(B, own tokens, ulysses, heads, D)."""
        with self.marks.waiting("the exchange of outputs"):
            self.work.wait()
        return self.by_rank.permute(2, 1, 0, 3, 4)


def send_output(x: Heads, lengths: Sequence[int], mesh: SequenceMesh) -> Returning:
    """Send (B, the group's tokens, a piece of H / ulysses, D) on its way back."""
    own = lengths[mesh.ulysses_index]
    outgoing = x.transpose(0, 1).contiguous()
    incoming = outgoing.new_empty((mesh.ulysses, own, *outgoing.shape[1:]))
    work = dist.all_to_all_single(
        incoming.flatten(0, 1),
        outgoing,
        output_split_sizes=[own] * mesh.ulysses,
        input_split_sizes=list(lengths),
        group=mesh.ulysses_group,
        async_op=True,
    )
    assert work is not None
    return Returning(incoming, work, outgoing, mesh.marks)


def joined_heads(returning: Sequence[Returning]) -> Heads:
    """(B, own tokens, H, D) of all pieces of the heads, once they are back."""
    pieces = [each.wait() for each in returning]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=3)).flatten(2, 3)


def gather_heads(x: Heads, lengths: Sequence[int], mesh: SequenceMesh) -> Heads:
    """The way back of an output: (B, the group's tokens, H / ulysses, D) -> (B, own tokens, H, D)."""
    return x if mesh.ulysses == 1 else joined_heads([send_output(x, lengths, mesh)])


def own_heads(x: Heads, mesh: SequenceMesh) -> Heads:
    """This Ulysses rank's heads of a tensor that every rank holds whole: no communication."""
    share = x.shape[2] // mesh.ulysses
    return x.narrow(2, mesh.ulysses_index * share, share)


def all_heads(x: Heads, mesh: SequenceMesh) -> Heads:
    """The inverse of ``own_heads``: (B, T, H / ulysses, D) of each rank -> (B, T, H, D) on all."""
    if mesh.ulysses == 1:
        return x
    piece = x.contiguous()
    pieces = piece.new_empty((mesh.ulysses * piece.shape[0], *piece.shape[1:]))
    with mesh.marks.waiting("the gathering of text"):
        all_gather_single(pieces, piece, mesh.ulysses_group)
    return torch.cat(pieces.chunk(mesh.ulysses), dim=2)
