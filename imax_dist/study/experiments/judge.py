"""The testbed's own judge: votes between two pictures of a scene by the true measures.

It stands in for the paper's vision-language model (A.1) where there is none. Each criterion casts one
vote, or none where the two are within its tolerance; the majority decides, equal votes are a tie.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from imax_dist.study.experiments.bradley_terry import Vote
from imax_dist.study.experiments.measures import ALL

NAME = "testbed (true measures, no vision-language model)"
TOLERANCES = {
    "facts": 0.05,
    "repeats": 0.5,
    "layout": 1.0,
    "spectrum gap": 0.05,
    "edges": 0.02,
    "placed": 0.02,
    "grid": 0.1,
    "speckle": 0.5,
}
"""Differences that count; measures of which a study has no values do not vote."""


def judge(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, list[str]]:
    """Share of the vote for ``one`` (1, 0.5 or 0), and the reasons, one a criterion that voted."""
    balance, reasons = 0, []
    for name, tolerance in TOLERANCES.items():
        if name not in one or name not in other:
            continue
        ahead = one[name] - other[name]
        ahead = ahead if ALL[name].better == "high" else -ahead
        if abs(ahead) > tolerance:
            balance += 1 if ahead > 0 else -1
            reasons.append(f"{name} {one[name]:.3g} against {other[name]:.3g}")
    return (1.0 if balance > 0 else 0.0 if balance < 0 else 0.5), reasons


def votes_of(found: Mapping[str, Any]) -> dict[str, list[Vote]]:
    """Every pair of variants on every scene of a study's results, by ``2x 256x256``."""
    places: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for cell in found["cells"]:
        places.setdefault((f"{cell['scale']:g}x {cell['size']}", cell["scene"]), []).append(cell)
    votes: dict[str, list[Vote]] = {}
    for (size, scene), cells in places.items():
        for one, other in combinations(cells, 2):
            share, _ = judge(one["values"], other["values"])
            votes.setdefault(size, []).append(Vote(one["variant"], other["variant"], scene, share))
    return votes
