"""Read a picture's facts from its pixels alone: the parser never sees the caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.study.scenes.palette import (
    BIRD,
    CLOUDS,
    LIGHTS,
    PAINTS,
    RANGES,
    SKIES,
    glow_around,
    ground_colours,
)
from imax_dist.study.scenes.regions import Mask, Region, regions, shrink

Floats = npt.NDArray[np.float64]
FACTS = (
    "sky", "light", "side", "lights", "ground", "kind", "paint", "count", "mountains", "clouds", "birds",
)  # fmt: skip
_GRAIN = 128  # pictures are read at about this shorter side
_SKY_END, _OBJECTS_START = 0.40, 0.43  # as fractions of the height; see layout.py


def parse(picture: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Facts of a (height, width, 3) picture: see FACTS; what is not found is None, 0 or False.

    Larger pictures are area-averaged to about 128 px first. Raises BadValue below 64 px a side.
    """
    if picture.ndim != 3 or min(picture.shape[:2]) < 64:
        raise BadValue(f"parse: a picture of shape {picture.shape} is too small; give 64 px a side or more")
    image = _shrunk(picture)
    unit = min(image.shape[:2])
    sky = _nearest(_median(image[: max(2, unit // 32)]), {k: c[0] for k, c in SKIES.items()})
    ground = _nearest(_median(image[-unit // 20 :]), _near_colours(sky))
    horizon = _horizon(image, ground_colours(ground, sky)[0])
    discs, light = _lights(image, unit)
    behind = _bare_sky(image.shape, sky, horizon, (discs, light))
    clear = _away_from(discs, image.shape[:2])
    kind, paint, count = _objects(image, unit, (sky, ground))
    return {
        "sky": sky, "light": light, "side": _side(discs, image.shape[1]), "lights": len(discs),
        "ground": ground, "kind": kind, "paint": paint, "count": count,
        "mountains": _mountains(image, sky, horizon),
        "clouds": _clouds(image, behind, clear, CLOUDS[sky]),
        "birds": sky != "dark" and _birds(image, behind, clear),
    }  # fmt: skip


def matches(found: dict[str, Any], facts: dict[str, Any]) -> dict[str, bool]:
    """Field by field, whether a parse agrees with a scene's facts."""
    return {name: found[name] == facts[name] for name in FACTS}


def _shrunk(picture: npt.NDArray[np.uint8]) -> Floats:
    factor = max(1, min(picture.shape[:2]) // _GRAIN)
    height, width = (side // factor for side in picture.shape[:2])
    blocks = picture[: height * factor, : width * factor].astype(np.float64)
    means: Floats = blocks.reshape(height, factor, width, factor, 3).mean((1, 3))
    return means


def _median(rows: Floats) -> Floats:
    middle: Floats = np.median(rows.reshape(-1, 3), axis=0)
    return middle


def _nearest(colour: Floats, table: dict[str, Any]) -> str:
    return min(table, key=lambda name: float(np.linalg.norm(np.asarray(table[name]) - colour)))


def _near_colours(sky: str) -> dict[str, Any]:
    return {name: ground_colours(name, sky)[1] for name in ("sea", "meadow", "desert", "snow")}


def _horizon(image: Floats, far: Floats) -> int:
    """The row in 0.5..0.64 of the height where the rows' median colour jumps most, to the colour
    ``far`` of the ground at the horizon; a crest or a hill jumps to another colour."""
    rows = np.median(image, axis=1)
    low, high = int(0.50 * len(rows)), int(0.64 * len(rows)) + 1

    def score(i: int) -> float:
        below, above = rows[i : i + 2].mean(0), rows[i - 3 : i - 1].mean(0)
        return float(np.linalg.norm(below - above) - np.linalg.norm(below - far))

    return max(range(low, high), key=score)


def _bare_sky(
    shape: tuple[int, ...], sky: str, horizon: int, lamp: tuple[list[Region], str | None]
) -> Floats:
    """The sky without clouds and birds, (height, width, 3): the gradient and the lights' glow."""
    rows, columns = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None] + 0.5
    stops = np.asarray(SKIES[sky], float)
    down = np.clip(rows / horizon, 0, 1) + 0 * columns
    air = np.stack([np.interp(down, (0.0, 0.55, 1.0), stops[:, c]) for c in range(3)], -1)
    discs, light = lamp
    for disc in discs:
        away = np.hypot(rows - disc.rows.mean() - 0.5, columns - disc.columns.mean() - 0.5)
        glow = glow_around(away / (0.5 * disc.width))[..., None]
        air += glow * (np.asarray(LIGHTS[str(light)]) - air)
    return air


def _lights(image: Floats, unit: int) -> tuple[list[Region], str | None]:
    """The discs in the sky and the colour of the largest; the strictest colour match that finds any."""
    upper = image[: int(0.46 * len(image))]
    for tolerance in (28, 42, 58):
        found = [
            (region, name)
            for name, colour in LIGHTS.items()
            for region in regions(_close(upper, colour, tolerance), smallest=int(0.004 * unit * unit))
            if _is_disc(region)
        ]
        if found:
            largest = max(found, key=lambda pair: pair[0].area)
            return [region for region, _ in found], largest[1]
    return [], None


def _is_disc(region: Region) -> bool:
    return 0.75 < region.height / region.width < 1.34 and region.disc_overlap() > 0.84


def _side(discs: list[Region], width: int) -> str | None:
    if not discs:
        return None
    place = float(max(discs, key=lambda disc: disc.area).columns.mean()) / width
    return "left" if place < 0.35 else "right" if place > 0.65 else "middle"


def _close(image: Floats, colour: Any, tolerance: float) -> Mask:
    mask: Mask = np.linalg.norm(image - np.asarray(colour), axis=-1) < tolerance
    return mask


def _away_from(discs: list[Region], shape: tuple[int, ...]) -> Mask:
    """Sky pixels outside the lights and their brightest glow."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    clear: Mask = np.broadcast_to(rows < _SKY_END * shape[0], shape[:2]).copy()
    for disc in discs:
        away = np.hypot(rows - disc.rows.mean(), columns - disc.columns.mean())
        clear &= away > 0.5 * disc.width * 1.3
    return clear


def _towards(image: Floats, behind: Floats, colour: Any) -> tuple[Floats, Floats]:
    """How far each pixel lies on the way from the bare sky to ``colour``, and how far off that way."""
    way = np.asarray(colour, float) - behind
    change = image - behind
    share = (change * way).sum(-1) / (way * way).sum(-1)
    off = np.linalg.norm(change - share[..., None] * way, axis=-1)
    return share, off


def _clouds(image: Floats, behind: Floats, clear: Mask, colour: Any) -> bool:
    share, off = _towards(image, behind, colour)
    mask = shrink((share > 0.4) & (off < 45) & clear, 1)
    unit = min(image.shape[:2])
    return bool(regions(mask, smallest=int(0.004 * unit * unit)))


def _birds(image: Floats, behind: Floats, clear: Mask) -> bool:
    share, off = _towards(image, behind, BIRD)
    mask = (share > 0.35) & (off < 45) & clear
    return int(mask.sum()) >= 5


def _mountains(image: Floats, sky: str, horizon: int) -> bool:
    """Whether the band just above the horizon is rock rather than air."""
    band = image[horizon - 5 : horizon - 2].reshape(-1, 3)
    air = np.asarray(SKIES[sky][2], float)
    rock = 0.65 * np.asarray(RANGES[sky], float) + 0.35 * air
    to_rock, to_air = (np.linalg.norm(band - c, axis=-1) for c in (rock, air))
    return float((to_rock < to_air).mean()) > 0.5


def _objects(image: Floats, unit: int, place: tuple[str, str]) -> tuple[str | None, str | None, int]:
    """Kind, paint and number of the objects: the paint that covers most of the lower picture."""
    sky, ground = place
    start = int(_OBJECTS_START * len(image))
    best: tuple[int, str | None, list[Region]] = (0, None, [])
    for paint, colour in PAINTS.items():
        if (paint, ground) == ("white", "snow") or (paint, sky) == ("black", "dark"):
            continue
        mask = _close(image[start:], colour, 42 if paint in ("white", "black") else 58)
        join = 2 if ground == "sea" else 1
        found = regions(mask, smallest=int(0.0013 * unit * unit), join=join)
        area = sum(region.area for region in found)
        if area > best[0]:
            best = (area, paint, found)
    _, chosen, objects = best
    return (_kind(objects) if objects else None), chosen, len(objects)


def _kind(found: list[Region]) -> str:
    """Sails fill about half of their box, crowns 0.79 of it; walls fill it but for door and windows."""
    fullness = float(np.median([region.fullness() for region in found]))
    holes = float(np.median([region.holes() for region in found]))
    if fullness > 0.91 or (fullness > 0.7 and holes > 0.11):
        return "house"
    return "boat" if fullness < 0.66 else "tree"
