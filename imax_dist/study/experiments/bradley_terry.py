"""Strengths from pairwise votes: Bradley and Terry 1952, fitted as in Hunter 2004; a tie is half a win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.study.metrics.interval import Interval

Floats = npt.NDArray[np.float64]
DRAWS = 300


@dataclass(frozen=True)
class Vote:
    """``share`` of the vote (1, 0.5, 0) that ``one`` got against ``other`` on ``scene``."""

    one: str
    other: str
    scene: int
    share: float


def strengths(votes: Sequence[Vote], *, seed: int = 0) -> dict[str, Interval]:
    """Each name's chance to win against an average opponent, 95 % intervals from resampled scenes.

    Raises BadValue without votes.
    """
    if not votes:
        raise BadValue("bradley-terry: there are no votes; vote on at least one pair")
    names = sorted({name for vote in votes for name in (vote.one, vote.other)})
    scenes = sorted({vote.scene for vote in votes})
    by_scene = np.stack([_wins([v for v in votes if v.scene == scene], names) for scene in scenes])
    point = _fit(by_scene.sum(0))
    rows = np.random.default_rng(seed).integers(len(scenes), size=(DRAWS, len(scenes)))
    drawn = np.stack([_fit(by_scene[row].sum(0)) for row in rows])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {
        name: Interval(float(point[k]), float(low[k]), float(high[k]), len(scenes))
        for k, name in enumerate(names)
    }


def win_rate(votes: Sequence[Vote], name: str) -> list[float]:
    """Shares of the vote of ``name``, one a vote it took part in."""
    return [v.share if v.one == name else 1 - v.share for v in votes if name in (v.one, v.other)]


def _wins(votes: Sequence[Vote], names: Sequence[str]) -> Floats:
    """wins[i, j]: votes of i against j."""
    table = np.zeros((len(names), len(names)))
    for vote in votes:
        i, j = names.index(vote.one), names.index(vote.other)
        table[i, j] += vote.share
        table[j, i] += 1 - vote.share
    return table


def _fit(wins: Floats, *, rounds: int = 200, prior: float = 0.1) -> Floats:
    """Maximum-likelihood strengths as the mean chance to win; a small prior keeps them finite."""
    count = len(wins)
    wins = wins + prior * (1 - np.eye(count))
    games, own = wins + wins.T, wins.sum(1)
    strength = np.ones(count)
    for _ in range(rounds):
        strength = own / (games / (strength[:, None] + strength[None])).sum(1)
        strength /= np.exp(np.log(strength).mean())
    chance = strength[:, None] / (strength[:, None] + strength[None])
    average: Floats = (chance.sum(1) - 0.5) / max(1, count - 1)
    return average
