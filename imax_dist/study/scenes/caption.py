"""Captions: a small closed vocabulary, lower case, at most 22 words, said in natural variations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imax_dist.study.scenes.palette import GROUNDS, LIGHTS, PAINTS, SKIES
from imax_dist.study.scenes.spec import EXTRAS, KINDS, SIDES, Scene

PLURALS = {"boat": "boats", "house": "houses", "tree": "trees"}
NUMBERS = {1: "one", 2: "two", 3: "three"}
_GLUE = ("a", "an", "the", "on", "in", "over", "above", "under", "with", "and", "sun", "moon", "sky", "night")


@dataclass(frozen=True)
class Phrases:
    """A scene's parts in words."""

    light: str  # a red sun
    where: str  # on the left
    sky: str  # a blue sky
    ground: str  # sea
    objects: str  # two white boats
    extras: str  # " and mountains", or nothing


Template = Callable[[Phrases], str]


def vocabulary() -> tuple[str, ...]:
    """Every word a caption may hold, each once."""
    words = [*_GLUE, *SKIES, *LIGHTS, *SIDES, *GROUNDS, *PAINTS, *KINDS, *PLURALS.values()]
    return tuple(dict.fromkeys([*words, *NUMBERS.values(), *EXTRAS]))


def caption(scene: Scene) -> str:
    """The plain caption: every fact, always in the same order."""
    return _light_first(_phrases(scene, NUMBERS[scene.count], f"{scene.sky} sky"))


def varied_caption(scene: Scene, seed: int) -> str:
    """A natural variation. One in eight leaves facts out; the rest state them all."""
    rng = np.random.default_rng([seed, 1])
    article = "a" if scene.count == 1 and rng.random() < 0.4 else NUMBERS[scene.count]
    sky = "night sky" if scene.sky == "dark" and rng.random() < 0.4 else f"{scene.sky} sky"
    table = SHORT if rng.random() < 0.125 else FULL
    return table[int(rng.integers(len(table)))](_phrases(scene, article, sky))


def _phrases(scene: Scene, number: str, sky: str) -> Phrases:
    noun = scene.kind if scene.count == 1 else PLURALS[scene.kind]
    return Phrases(
        light=f"a {scene.light} {scene.body}",
        where=f"{'in' if scene.side == 'middle' else 'on'} the {scene.side}",
        sky=f"an {sky}" if sky.startswith("o") else f"a {sky}",
        ground=scene.ground,
        objects=f"{number} {scene.paint} {noun}",
        extras="".join(f" and {extra}" for extra in scene.extras),
    )


def _light_first(p: Phrases) -> str:
    return f"{p.light} {p.where} in {p.sky} over the {p.ground} with {p.objects}{p.extras}"


def _light_above(p: Phrases) -> str:
    return f"{p.light} {p.where} in {p.sky} above the {p.ground} and {p.objects}{p.extras}"


def _objects_first(p: Phrases) -> str:
    return f"{p.objects} on the {p.ground} under {p.sky} with {p.light} {p.where}{p.extras}"


def _sky_first(p: Phrases) -> str:
    return f"{p.sky} with {p.light} {p.where} and {p.objects} on the {p.ground}{p.extras}"


def _only_light(p: Phrases) -> str:
    return f"{p.light} over the {p.ground}"


def _light_and_sky(p: Phrases) -> str:
    return f"{p.light} {p.where} in {p.sky} over the {p.ground}"


def _only_objects(p: Phrases) -> str:
    return f"{p.objects} on the {p.ground}"


def _no_light(p: Phrases) -> str:
    return f"{p.objects} on the {p.ground} under {p.sky}{p.extras}"


FULL: tuple[Template, ...] = (
    _light_first,
    _light_first,
    _light_above,
    _objects_first,
    _sky_first,
)
SHORT: tuple[Template, ...] = (_only_light, _light_and_sky, _only_objects, _no_light)
