"""Where a gang's ranks are: numbered by the node they really run on, away from nodes that lose gangs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

NODE_ID = "ray.io/node-id"
"""Ray's own label of every node."""
TOO_MANY = 2
"""Gangs lost on a node before others are preferred: one may be chance, the second is the node's."""


def in_node_order(nodes: Sequence[str]) -> list[int]:
    """Indices of actors so that those of one node follow each other, larger nodes first.

    Placement says nothing of the order of bundles: 5 + 5 + 6 free GPUs, and a full node between two others,
    are both possible.
    """
    counts, first = Counter(nodes), {node: nodes.index(node) for node in nodes}
    return sorted(range(len(nodes)), key=lambda k: (-counts[nodes[k]], first[nodes[k]], k))


class LostOn:
    """How many gangs were lost by a rank on each node."""

    def __init__(self) -> None:
        self._losses: Counter[str] = Counter()

    def add(self, node: str) -> None:
        self._losses[node] += 1

    def avoided(self, nodes: Collection[str]) -> list[str]:
        """Those of the living ``nodes`` that a new gang stays away from; none if there are no others."""
        bad = sorted(node for node in nodes if self._losses[node] >= TOO_MANY)
        return [] if len(bad) == len(nodes) else bad


def placement_options(avoided: Sequence[str], bundles: int) -> dict[str, Any]:
    """What Ray's placement_group takes to keep ``bundles`` off these nodes."""
    if not avoided:
        return {}
    return {"bundle_label_selector": [{NODE_ID: f"!in({','.join(avoided)})"}] * bundles}
