"""What a scene contains: its facts (the words of the caption) and a seed for the layout."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from imax_dist.errors import BadValue
from imax_dist.study.scenes.palette import GROUNDS, LIGHTS, PAINTS, SKIES

SIDES = {"left": 0.2, "middle": 0.5, "right": 0.8}  # fraction of the width
KINDS = ("boat", "house", "tree")
EXTRAS = ("mountains", "clouds", "birds")
MOST_OBJECTS = 3
MOST_EXTRAS = 2
SIZES = (0.12, 0.5)  # object height as a fraction of the picture's shorter side


@dataclass(frozen=True)
class Scene:
    """One scene. ``size`` is the objects' height as a fraction of the picture's shorter side;
    ``seed`` settles every position; nothing depends on the resolution it is rendered at."""

    sky: str
    light: str
    side: str
    ground: str
    kind: str
    paint: str
    count: int
    extras: tuple[str, ...]
    size: float
    seed: int

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise BadValue(f"scene: {name} is {getattr(self, name)!r}; choose from {', '.join(allowed)}")
        if not 1 <= self.count <= MOST_OBJECTS:
            raise BadValue(f"scene: count is {self.count}; choose 1 to {MOST_OBJECTS}")
        unknown = [extra for extra in self.extras if extra not in EXTRAS]
        if unknown:
            raise BadValue(f"scene: unknown extra {unknown[0]!r}; choose from {', '.join(EXTRAS)}")
        if not 0.05 <= self.size <= 0.6:
            raise BadValue(f"scene: size is {self.size}; choose 0.05 to 0.6")

    @property
    def body(self) -> str:
        """What shines: a moon in a dark sky, else a sun."""
        return "moon" if self.sky == "dark" else "sun"

    def facts(self) -> dict[str, Any]:
        """What a caption states and a parser must find again, by field."""
        flags = {extra: extra in self.extras for extra in EXTRAS}
        return {
            "sky": self.sky, "light": self.light, "side": self.side, "lights": 1,
            "ground": self.ground, "kind": self.kind, "paint": self.paint, "count": self.count,
            **flags,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The scene as plain JSON values."""
        return {**asdict(self), "extras": list(self.extras)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scene:
        """The scene ``to_json`` wrote. Raises BadValue on missing, unknown or wrong fields."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(set(values) ^ names))
            raise BadValue(f"scene: missing or unknown fields: {odd}; needed: {sorted(names)}")
        return cls(**{**values, "extras": tuple(values["extras"])})


_CHOICES: dict[str, tuple[str, ...]] = {
    "sky": tuple(SKIES),
    "light": tuple(LIGHTS),
    "side": tuple(SIDES),
    "ground": tuple(GROUNDS),
    "kind": KINDS,
    "paint": tuple(PAINTS),
}


def sample_scene(seed: int) -> Scene:
    """A random scene; the same seed gives the same scene. Sizes are log-uniform, so that no size of
    an object, and so no size of a detail, is special."""
    rng = np.random.default_rng([seed, 0])
    sky = _one(rng, SKIES)
    ground = _one(rng, GROUNDS)
    paints = [p for p in PAINTS if (p, ground) != ("white", "snow") and (p, sky) != ("black", "dark")]
    count = int(rng.integers(1, MOST_OBJECTS + 1))
    low, high = SIZES
    high = min(high, 0.82 / count)
    return Scene(
        sky=sky,
        light=_one(rng, ("yellow", "white") if sky == "dark" else LIGHTS),
        side=_one(rng, SIDES),
        ground=ground,
        kind="boat" if ground == "sea" else _one(rng, ("house", "tree")),
        paint=_one(rng, paints),
        count=count,
        extras=_sample_extras(rng, sky),
        size=round(float(low * (high / low) ** rng.random()), 4),
        seed=int(rng.integers(2**31)),
    )


def _sample_extras(rng: np.random.Generator, sky: str) -> tuple[str, ...]:
    """Up to two extras, in the order of EXTRAS; no birds by night."""
    chosen = [e for e in EXTRAS if rng.random() < 0.35 and (e, sky) != ("birds", "dark")]
    while len(chosen) > MOST_EXTRAS:
        chosen.pop(int(rng.integers(len(chosen))))
    return tuple(chosen)


def _one(rng: np.random.Generator, choices: Any) -> str:
    options = list(choices)
    return str(options[int(rng.integers(len(options)))])
