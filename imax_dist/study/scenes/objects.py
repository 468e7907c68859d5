"""Boats, houses and trees: large shapes that carry the caption, small ones that need pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imax_dist.study.scenes import distance
from imax_dist.study.scenes.canvas import Array, Canvas, Window
from imax_dist.study.scenes.layout import Layout, Placed, stream
from imax_dist.study.scenes.palette import LAMP, PAINTS, ROOF, WOOD
from imax_dist.study.scenes.spec import Scene


def paint_objects(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """All captioned objects, the far ones first."""
    paint = np.asarray(PAINTS[scene.paint], np.float32)
    for placed in layout.objects:
        reach = 0.62 * placed.size
        window = canvas.window(
            placed.x - reach, placed.foot - 1.02 * placed.size, placed.x + reach,
            placed.foot + 0.3 * placed.size,
        )  # fmt: skip
        if not window.empty:
            turns = stream(scene, "skin").random(3) * 6.28
            DRAW[scene.kind](window, placed, paint, turns)


def _detail(paint: Array) -> Array:
    """The colour of fine lines on a surface: darker, or lighter on black."""
    return paint * 0.55 if paint.mean() > 60 else paint + 60


def _shadow(window: Window, placed: Placed, colour: tuple[float, float, float], *, reach: float) -> None:
    """A soft ellipse on the ground below the object."""
    across = (window.x - placed.x) / (reach * placed.size)
    down = (window.y - placed.foot) / (0.09 * placed.size)
    soft = np.clip(1 - np.hypot(across, down), 0, 1)
    window.blend(0.5 * np.clip(1.6 * soft, 0, 1), colour)


def _boat(window: Window, placed: Placed, paint: Array, _: Array) -> None:
    x, foot, size = placed.x, placed.foot, placed.size
    _reflection(window, placed, paint)
    mast = distance.box(window.x, window.y, (x, foot - 0.58 * size), (0.014 * size, 0.42 * size))
    window.fill(mast, WOOD)
    main = [(x + 0.03 * size, foot - 0.98 * size), (x + 0.44 * size, foot - 0.24 * size),
            (x + 0.03 * size, foot - 0.24 * size)]  # fmt: skip
    fore = [(x - 0.03 * size, foot - 0.88 * size), (x - 0.03 * size, foot - 0.24 * size),
            (x - 0.34 * size, foot - 0.24 * size)]  # fmt: skip
    seams = distance.lines(window.y - foot + 0 * window.x, size / 8, size / 70, window.pixel)
    seams = 0.8 * seams * window.sharpness(size / 8)
    cloth = paint + (_detail(paint) - paint) * seams[..., None]
    for sail in (main, fore):
        window.fill(distance.polygon(window.x, window.y, sail), cloth)
    _hull(window, placed)


def _hull(window: Window, placed: Placed) -> None:
    x, foot, size = placed.x, placed.foot, placed.size
    hull = [(x - 0.46 * size, foot - 0.19 * size), (x + 0.46 * size, foot - 0.19 * size),
            (x + 0.30 * size, foot), (x - 0.30 * size, foot)]  # fmt: skip
    planks = distance.lines(window.y - foot + 0 * window.x, size / 18, size / 110, window.pixel)
    planks = 0.6 * planks * window.sharpness(size / 18)
    wood = np.asarray(WOOD, np.float32) * (1 - 0.5 * planks[..., None])
    window.fill(distance.polygon(window.x, window.y, hull), wood)
    stay = window.sharpness(0.06 * size)  # rigging shows late
    for end in (-0.44, 0.44):
        rope = ((x, foot - 1.0 * size), (x + end * size, foot - 0.2 * size))
        window.fill(distance.segment(window.x, window.y, rope, 0.005 * size), (60, 48, 40), 0.7 * stay)


def _reflection(window: Window, placed: Placed, paint: Array) -> None:
    """The sails on the water, fading downwards, broken into bands where there are pixels."""
    below = (window.y - placed.foot) / (0.28 * placed.size)
    across = np.abs(window.x - placed.x) / (0.40 * placed.size)
    cover = np.clip(1 - across, 0, 1) * np.clip(1 - below, 0, 1) * (below > -0.2)
    bands = np.sin(6.28 * below * 4 + 2 * np.sin(9 * across))
    cover = cover * (1 + 0.7 * window.sharpness(0.07 * placed.size) * bands)
    window.blend(np.clip(0.4 * cover, 0, 1), 0.8 * paint)


def _house(window: Window, placed: Placed, paint: Array, _: Array) -> None:
    x, foot, size = placed.x, placed.foot, placed.size
    _shadow(window, placed, (40, 44, 60), reach=0.62)
    chimney = (x + 0.22 * size, foot - 0.84 * size)
    window.fill(distance.box(window.x, window.y, chimney, (0.05 * size, 0.12 * size)), ROOF)
    wall = distance.box(window.x, window.y, (x, foot - 0.3 * size), (0.42 * size, 0.3 * size))
    window.fill(wall, _bricks(window, placed, paint))
    roof = [(x, foot - 1.0 * size), (x + 0.53 * size, foot - 0.57 * size),
            (x - 0.53 * size, foot - 0.57 * size)]  # fmt: skip
    tiles = distance.lines(window.y - foot + 0 * window.x, size / 14, size / 80, window.pixel)
    tiles = 0.45 * tiles * window.sharpness(size / 14)
    window.fill(
        distance.polygon(window.x, window.y, roof),
        np.asarray(ROOF, np.float32) * (1 - tiles[..., None]),
    )
    for across in (-0.24, 0.24):
        _pane(window, (x + across * size, foot - 0.38 * size), 0.095 * size)
    door = distance.box(window.x, window.y, (x, foot - 0.13 * size), (0.075 * size, 0.13 * size))
    window.fill(door, (82, 52, 32))
    knob = distance.circle(window.x, window.y, (x + 0.04 * size, foot - 0.12 * size), 0.012 * size)
    window.fill(knob, LAMP, window.sharpness(0.03 * size))


def _bricks(window: Window, placed: Placed, paint: Array) -> Array:
    """Wall colour with courses of bricks, each second course shifted by half a brick."""
    high, wide = placed.size / 15, placed.size / 7.5
    up, across = placed.foot - window.y, window.x - placed.x
    course = np.floor(up / high)
    flat = distance.lines(up + 0 * across, high, placed.size / 110, window.pixel)
    upright = distance.lines(across + (course % 2) * wide / 2, wide, placed.size / 110, window.pixel)
    mortar = 0.6 * np.maximum(flat, upright) * window.sharpness(high)
    return paint + (_detail(paint) - paint) * mortar[..., None]


def _pane(window: Window, centre: tuple[float, float], half: float) -> None:
    """A lit window; its frame and cross bars need pixels."""
    pane = distance.box(window.x, window.y, centre, (half, half))
    window.fill(pane, LAMP)
    bars = np.minimum(np.abs(window.x - centre[0]), np.abs(window.y - centre[1])) - 0.10 * half
    frame = np.maximum(np.minimum(bars, -pane - 0.16 * half), pane)
    window.fill(frame, (76, 52, 36), window.sharpness(0.5 * half))


def _tree(window: Window, placed: Placed, paint: Array, turns: Array) -> None:
    x, foot, size = placed.x, placed.foot, placed.size
    _shadow(window, placed, (40, 44, 60), reach=0.45)
    trunk = [(x - 0.045 * size, foot - 0.5 * size), (x + 0.045 * size, foot - 0.5 * size),
             (x + 0.075 * size, foot), (x - 0.075 * size, foot)]  # fmt: skip
    window.fill(distance.polygon(window.x, window.y, trunk), WOOD)
    right, down = window.x - x, window.y - (foot - 0.64 * size)
    angle = np.arctan2(down, right)
    rim = np.full(angle.shape, 0.36 * size, np.float32)
    for lobes, depth, turn in ((7, 0.05, turns[0]), (17, 0.03, turns[1]), (41, 0.022, turns[2])):
        seen = window.sharpness(6.28 * 0.36 * size / lobes)
        rim = rim * (1 + seen * depth * np.sin(lobes * angle + turn))
    window.fill(np.hypot(right, down) - rim, _leaves(window, placed, paint))


def _leaves(window: Window, placed: Placed, paint: Array) -> Array:
    """Crown colour: a light and a shaded side, then leaves where there are pixels."""
    right = (window.x - placed.x) / placed.size
    down = (window.y - placed.foot) / placed.size + 0.64
    shade = np.clip(0.35 * right + 0.55 * down, -0.3, 0.3)
    period = 0.05
    speck = np.sin(6.28 * right / period + 3 * np.sin(23 * down)) * np.sin(
        6.28 * down / period + 3 * np.sin(19 * right)
    )
    shade = shade + 0.25 * window.sharpness(period * placed.size) * speck
    swing = 0.6 * paint if paint.mean() > 60 else paint + 30
    crown: Array = np.clip(paint - shade[..., None] * swing, 0, 255)
    return crown


DRAW: dict[str, Callable[[Window, Placed, Array, Array], None]] = {
    "boat": _boat,
    "house": _house,
    "tree": _tree,
}
