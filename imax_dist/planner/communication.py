"""Bytes each rank sends in a step and the time they take; closed forms, asserted elsewhere by counting.

A layer of joint attention over S = image + text tokens on P = ulysses x ring ranks (text sharded), C and Ckv
the widths of queries and keys: Ulysses (2 C + 2 Ckv) (S/P) (u-1)/u, ring 2 Ckv (S/P) (r-1). Where u does not
divide the key heads each is repeated, to lcm(key heads, u) of them (DECISIONS 25).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from imax_dist.parallel.engines.torch import head_pieces
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.split import Split
from imax_dist.planner.transformer import Transformer
from imax_dist.planner.workload import Pass

AGREEMENTS = 1
"""A step: whether any rank was asked to stop."""
ULYSSES_CALLS = 2
"""All-to-alls a layer and piece of the heads: queries, keys and values out in one, the output back."""


@dataclass(frozen=True)
class Traffic:
    """Bytes a rank sends in one run of the network."""

    ulysses: float
    ring: float
    gather: float

    @property
    def total(self) -> float:
        return self.ulysses + self.ring + self.gather


def sent(net: Transformer, tokens: Pass, split: Split, *, element: int) -> Traffic:
    """The closed forms over all layers, and the gathering of the velocity's tokens at the end."""
    own = tokens.tokens / split.ranks
    u, r = split.ulysses, split.ring
    keys = math.lcm(net.kv_heads, u) * net.head_dim
    ulysses = (2 * net.width + 2 * keys) * own * (u - 1) / u
    ring = 2 * keys * own * (r - 1)
    gather = net.token_channels * tokens.image * (split.ranks - 1) / split.ranks
    return Traffic(net.blocks * element * ulysses, net.blocks * element * ring, element * gather)


def pieces(net: Transformer, tokens: Pass, split: Split, cluster: Cluster) -> int:
    """In how many pieces a rank's heads are exchanged, each but the last beside another's attention."""
    if split.ulysses == 1 or split.ring > 1 or cluster.hardware.kind != "gpu":
        return 1
    return head_pieces(math.lcm(net.kv_heads, split.ulysses) // split.ulysses, tokens.tokens)


def seconds(
    net: Transformer,
    tokens: Pass,
    split: Split,
    cluster: Cluster,
    *,
    element: int,
    attention: float,
    mlp: float = 0.0,
) -> float:
    """What communication adds to one run of the network.

    ``attention`` is the rank's time in attention, behind which a GPU hides the ring's hops, or all pieces of
    the heads but one; ``mlp`` that of one block's MLP, behind which it hides the way of queries, keys and
    values in blocks ``beside``. On a CPU the cores that would compute copy the bytes.
    """
    if split.ranks == 1:
        return 0.0
    moved = sent(net, tokens, split, element=element)
    far = cluster.link(split.ranks)
    total = far.seconds(moved.gather, 1 + AGREEMENTS)
    if split.ulysses > 1:
        count, near = pieces(net, tokens, split, cluster), cluster.link(split.ulysses)
        keys = math.lcm(net.kv_heads, split.ulysses) * net.head_dim
        share = (net.width + 2 * keys) / (2 * net.width + 2 * keys)
        out, back = (near.seconds(part * moved.ulysses / net.blocks, count) for part in (share, 1 - share))
        between = attention / net.blocks * (count - 1) / count
        hidden_out = max(0.0, out - mlp)
        total += (net.blocks - net.beside) * _seen(out + back, between, count)
        total += net.beside * _seen(hidden_out + back, between, count)
    if split.ring > 1:
        hops = net.blocks * (split.ring - 1)
        hop = far.seconds(moved.ring / hops, 1)
        hidden = attention / (net.blocks * split.ring) if cluster.hardware.kind == "gpu" else 0.0
        total += hops * max(far.latency, hop - hidden)
    return total


def _seen(exchanges: float, between: float, pieces: int) -> float:
    """Of a block's exchanges of heads, what the attention ``between`` its pieces does not hide."""
    return exchanges / pieces + max(0.0, exchanges * (pieces - 1) / pieces - between)
