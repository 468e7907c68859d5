"""Where a gang's ranks are: numbered by the node they really run on, away from bad and leaving ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

NODE_ID = "ray.io/node-id"
"""Ray's own label of every node."""
TOO_MANY = 2
"""Gangs lost on a node before others are preferred: one may be chance, the second is the node's."""
ELSEWHERE_S = 20.0
"""How long room is looked for on other nodes, before a gang goes to one that lost gangs after all."""


def in_node_order(nodes: Sequence[str]) -> list[int]:
    """Indices of actors so that those of one node follow each other, larger nodes first.

    Placement says nothing of the order of bundles: 5 + 5 + 6 free GPUs, and a full node between two others,
    are both possible.
    """
    counts, first = Counter(nodes), {node: nodes.index(node) for node in nodes}
    return sorted(range(len(nodes)), key=lambda k: (-counts[nodes[k]], first[nodes[k]], k))


class Nodes:
    """Which nodes a new gang stays away from: those that lose gangs, and those that are about to go away."""

    def __init__(self) -> None:
        self._losses: Counter[str] = Counter()
        self._leaving: set[str] = set()

    def lost_on(self, node: str) -> None:
        """A gang was lost by a rank there."""
        self._losses[node] += 1

    def leaves(self, nodes: Iterable[str]) -> None:
        """They have been told so, by the notice that a provider gives before it takes a machine back."""
        self._leaving |= set(nodes)

    def avoided(self, nodes: Collection[str]) -> list[str]:
        """Of the living ``nodes``: all that leave, and those that lost gangs unless there are no others."""
        leaving = self.leaving(nodes)
        bad = sorted(node for node in nodes if self._losses[node] >= TOO_MANY and node not in self._leaving)
        return leaving if len(leaving) + len(bad) == len(nodes) else sorted(leaving + bad)

    def leaving(self, nodes: Collection[str]) -> list[str]:
        """Of the living ``nodes``, those about to go away."""
        return sorted(node for node in nodes if node in self._leaving)

    def attempts(self, nodes: Collection[str], seconds: float) -> list[tuple[list[str], float]]:
        """What to avoid, and for how long: the others may be full, and a bad node is better than none."""
        avoided, leaving = self.avoided(nodes), self.leaving(nodes)
        if avoided == leaving:
            return [(leaving, seconds)]
        first = min(ELSEWHERE_S, seconds / 2)
        return [(avoided, first), (leaving, seconds - first)]


def placement_options(avoided: Sequence[str], bundles: int) -> dict[str, Any]:
    """What Ray's placement_group takes to keep ``bundles`` off these nodes."""
    if not avoided:
        return {}
    return {"bundle_label_selector": [{NODE_ID: f"!in({','.join(avoided)})"}] * bundles}
