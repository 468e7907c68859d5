"""Where everything of a scene stands. One random stream an element: adding one moves no other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imax_dist.study.scenes.spec import SIDES, Scene

_STREAMS = ("horizon", "light", "objects", "mountains", "clouds", "birds", "stars", "ground", "skin")


def stream(scene: Scene, element: str) -> np.random.Generator:
    """The random numbers of one element of a scene."""
    return np.random.default_rng([scene.seed, _STREAMS.index(element)])


@dataclass(frozen=True)
class Placed:
    """One object: foot point and height, in scene units."""

    x: float
    foot: float
    size: float
    index: int


@dataclass(frozen=True)
class Layout:
    """The scene in numbers, all in scene units (height = 1, width = ``aspect``)."""

    aspect: float
    horizon: float
    light_x: float
    light_y: float
    light_radius: float
    objects: tuple[Placed, ...]


def lay_out(scene: Scene, aspect: float) -> Layout:
    """Positions for a picture of the given width / height. The light stays above 0.42, mountains
    and objects below it, so that no fact of the caption is ever hidden."""
    unit = min(1.0, aspect)
    horizon = 0.52 + 0.10 * float(stream(scene, "horizon").random())
    rng = stream(scene, "light")
    radius = unit * 0.055 * (0.13 / 0.055) ** float(rng.random())
    x = (SIDES[scene.side] + 0.08 * float(rng.random() - 0.5)) * aspect
    y = 0.05 + radius + (0.34 - 2 * radius) * float(rng.random())
    return Layout(aspect, horizon, x, y, radius, _place(scene, aspect, horizon))


def _place(scene: Scene, aspect: float, horizon: float) -> tuple[Placed, ...]:
    """Objects in as many equal slots, the far ones first and a little smaller."""
    rng = stream(scene, "objects")
    unit, count = min(1.0, aspect), scene.count
    slots = (np.arange(count) + 0.5) / count if count > 1 else np.array([0.25 + 0.5 * rng.random()])
    free = max(0.0, aspect / count - 1.12 * scene.size * unit)
    feet = max(horizon + 0.06, 0.44 + scene.size * unit) + 0.0 * rng.random(count)
    feet = feet + np.maximum(0.0, 0.94 - feet) * rng.random(count)
    placed = [
        Placed(
            x=float(slots[k] * aspect + 0.7 * free * (rng.random() - 0.5) * (count > 1)),
            foot=float(feet[k]),
            size=float(scene.size * unit * (0.86 + 0.14 * (feet[k] - 0.5) / 0.45)),
            index=k,
        )
        for k in range(count)
    ]
    return tuple(sorted(placed, key=lambda p: p.foot))
