"""How the ranks of a gang share a poster's tokens, and which ways are legal."""

from __future__ import annotations

from dataclasses import dataclass

from imax_dist.planner.cluster import Cluster
from imax_dist.planner.transformer import Transformer

MOST_RANKS = 256
"""Larger gangs are not tried: no poster gains from them."""


@dataclass(frozen=True)
class Split:
    """Ulysses x ring; rank = ring index x ulysses + ulysses index, so Ulysses ranks are neighbours."""

    ulysses: int = 1
    ring: int = 1

    @property
    def ranks(self) -> int:
        return self.ulysses * self.ring

    def __str__(self) -> str:
        if self.ranks == 1:
            return "alone"
        parts = [f"ulysses {self.ulysses}"] * (self.ulysses > 1) + [f"ring {self.ring}"] * (self.ring > 1)
        return " x ".join(parts)


@dataclass(frozen=True)
class Layout:
    """``gangs`` gangs that each split their poster the same way."""

    gangs: int
    split: Split

    @property
    def devices(self) -> int:
        return self.gangs * self.split.ranks

    def __str__(self) -> str:
        gangs = f"{self.gangs} gang{'s' * (self.gangs != 1)}"
        ranks = f"{self.split.ranks} rank{'s' * (self.split.ranks != 1)}"
        return f"{gangs} x {ranks}" + (f" ({self.split})" if self.split.ranks > 1 else "")


def why_illegal(split: Split, transformer: Transformer, *, image_tokens: int) -> str | None:
    """The reason the network cannot be split so, or None."""
    heads = transformer.heads
    if heads % split.ulysses:
        legal = [str(n) for n in range(1, heads + 1) if heads % n == 0]
        return f"ulysses {split.ulysses} does not divide the {heads} attention heads ({', '.join(legal)} do)"
    if image_tokens < split.ranks:
        return f"{image_tokens} image tokens cannot be shared by {split.ranks} ranks"
    return None


def within_nodes(split: Split, cluster: Cluster) -> bool:
    """Whether no Ulysses group lies on two nodes."""
    return split.ranks <= cluster.per_node or cluster.per_node % split.ulysses == 0


def gangs_that_fit(cluster: Cluster, ranks: int) -> int:
    """How many gangs of ``ranks`` the cluster holds: within nodes, or of whole nodes."""
    if ranks <= cluster.per_node:
        return cluster.nodes * (cluster.per_node // ranks)
    if ranks % cluster.per_node:
        return 0
    return cluster.nodes // (ranks // cluster.per_node)


def splits(ranks: int) -> list[Split]:
    """Every Ulysses x ring of so many ranks, the largest Ulysses first."""
    return [Split(ulysses, ranks // ulysses) for ulysses in range(ranks, 0, -1) if ranks % ulysses == 0]


@dataclass(frozen=True)
class Fixed:
    """What somebody decided; None is left to the planner."""

    gangs: int | None = None
    ranks: int | None = None
    ulysses: int | None = None
    ring: int | None = None
    most: int | None = None
    """Ranks of a gang at most."""

    def allows(self, split: Split) -> bool:
        """Whether the degrees are those that were asked for."""
        return self.ulysses in (None, split.ulysses) and self.ring in (None, split.ring)

    def __str__(self) -> str:
        degrees = [f"{name} {n}" for name, n in (("ulysses", self.ulysses), ("ring", self.ring)) if n]
        gangs = [f"{self.gangs} gangs"] if self.gangs else (["gangs"] if degrees else [])
        ranks = [f"{self.ranks} ranks"] if self.ranks else []
        return " of ".join(gangs + ranks + ([" x ".join(degrees)] if degrees else []))


def layouts(cluster: Cluster, fixed: Fixed | None = None) -> list[Layout]:
    """Every way to use the cluster, or only those with what is fixed."""
    fixed = fixed or Fixed()
    found = []
    largest = min(cluster.devices, MOST_RANKS, fixed.most or MOST_RANKS)
    for size in range(1, largest + 1) if fixed.ranks is None else [fixed.ranks]:
        most = gangs_that_fit(cluster, size)
        if most >= (fixed.gangs or 1):
            legal = [split for split in splits(size) if fixed.allows(split) and within_nodes(split, cluster)]
            found += [Layout(fixed.gangs or most, split) for split in legal]
    return found
