"""Ulysses: trade a piece of the sequence with all heads for all the sequence with a piece of the heads.

DeepSpeed-Ulysses, arXiv 2309.14509. Pieces may have different lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from imax_dist.parallel.collectives import all_gather_single
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.shapes import Heads, KeyHeads


def scatter_heads(x: Heads, lengths: Sequence[int], mesh: SequenceMesh) -> Heads:
    """(B, own tokens, H, D) -> (B, the group's tokens, H / ulysses, D), tokens in rank order.

    ``lengths`` are the token counts of the ranks of this Ulysses group.
    """
    if mesh.ulysses == 1:
        return x
    batch, own, heads, head_dim = x.shape
    by_rank = x.reshape(batch, own, mesh.ulysses, heads // mesh.ulysses, head_dim)
    outgoing = by_rank.permute(2, 1, 0, 3, 4).flatten(0, 1).contiguous()
    incoming = outgoing.new_empty((sum(lengths), *outgoing.shape[1:]))
    dist.all_to_all_single(
        incoming,
        outgoing,
        output_split_sizes=list(lengths),
        input_split_sizes=[own] * mesh.ulysses,
        group=mesh.ulysses_group,
    )
    return incoming.transpose(0, 1)


def scatter_qkv(
    qkv: tuple[Tensor, Tensor, Tensor], lengths: Sequence[int], mesh: SequenceMesh
) -> tuple[Tensor, Tensor, Tensor]:
    """``scatter_heads`` of query, key and value in one exchange; the degree divides the heads of each."""
    if mesh.ulysses == 1:
        return qkv
    shares = [x.shape[2] // mesh.ulysses for x in qkv]
    by_rank = [x.unflatten(2, (mesh.ulysses, -1)) for x in qkv]
    scattered = scatter_heads(torch.cat(by_rank, dim=3).flatten(2, 3), lengths, mesh)
    q, k, v = scattered.split(shares, dim=2)
    return q, k, v


def divisible_heads(x: KeyHeads, mesh: SequenceMesh) -> Tensor:
    """Grouped keys or values, each head repeated until the Ulysses degree divides their number.

    (B, S, H_kv, D) -> (B, S, lcm(H_kv, ulysses), D): nothing is repeated where the degree divides H_kv.
    """
    repeats = mesh.ulysses // math.gcd(mesh.ulysses, x.shape[2])
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=2)


def gather_heads(x: Heads, lengths: Sequence[int], mesh: SequenceMesh) -> Heads:
    """The inverse: (B, the group's tokens, H / ulysses, D) -> (B, own tokens, H, D)."""
    if mesh.ulysses == 1:
        return x
    own = lengths[mesh.ulysses_index]
    outgoing = x.transpose(0, 1).contiguous()
    incoming = outgoing.new_empty((mesh.ulysses * own, *outgoing.shape[1:]))
    dist.all_to_all_single(
        incoming,
        outgoing,
        output_split_sizes=[own] * mesh.ulysses,
        input_split_sizes=list(lengths),
        group=mesh.ulysses_group,
    )
    by_rank = incoming.reshape(mesh.ulysses, own, *incoming.shape[1:])
    return by_rank.permute(2, 1, 0, 3, 4).flatten(2, 3)


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
    all_gather_single(pieces, piece, mesh.ulysses_group)
    return torch.cat(pieces.chunk(mesh.ulysses), dim=2)
