"""The lower half of a scene: sea, meadow, desert or snow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imax_dist.study.scenes.canvas import Array, Canvas, Window
from imax_dist.study.scenes.layout import Layout, stream
from imax_dist.study.scenes.palette import LIGHTS, ground_colours
from imax_dist.study.scenes.spec import Scene


def paint_ground(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """A gradient from the horizon to the viewer, then what the kind of ground adds."""
    window = canvas.window(0.0, layout.horizon, layout.aspect, 1.0)
    if window.empty:
        return
    far, near = ground_colours(scene.ground, scene.sky)
    depth = np.clip((window.y - layout.horizon) / (1 - layout.horizon), 0, 1)
    colour = far + (near - far) * np.sqrt(depth)[..., None]
    window.fill(layout.horizon - window.y + 0 * window.x, colour)
    DETAILS[scene.ground](window, scene, layout, depth)


def _sea(window: Window, scene: Scene, layout: Layout, depth: Array) -> None:
    """A path of light under the sun or moon, and ripples that shorten towards the horizon."""
    light = np.asarray(LIGHTS[scene.light], np.float32)
    half = layout.light_radius * (0.55 + 1.1 * depth)
    path = np.exp(-(((window.x - layout.light_x) / half) ** 2)) * (1 - 0.75 * depth)
    below = (window.y > layout.horizon) * 1.0
    window.blend((0.5 * path * below).astype(np.float32), light)
    _ripples(window, scene, depth * below, strength=0.10)


def _ripples(window: Window, scene: Scene, depth: Array, *, strength: float) -> None:
    rng = stream(scene, "ground")
    for octave in range(5):
        period = 0.11 / 2.1**octave
        phase, tilt = 6.28 * rng.random(2)
        local = period * (0.25 + depth)  # waves shrink with distance
        shown = np.clip(local / window.pixel / 5.0 - 1.0, 0, 1) * (depth > 0)
        bend = 0.6 * np.sin(window.x / period * 0.9 + tilt) + 0.4 * np.sin(window.x / period * 2.3)
        wave = np.sin(6.28 * np.log(0.25 + depth) * 0.45 / period + phase + 1.5 * bend)
        crests = np.clip(wave, 0, 1) ** 2 - 0.25  # mean 0: no brighter where ripples show
        window.blend(strength * shown * crests, (236, 244, 250))


def _folds(window: Window, scene: Scene, layout: Layout, tones: tuple[float, float]) -> None:
    """Two gentle rises of the land, each with its own tone."""
    rng = stream(scene, "ground")
    far, near = ground_colours(scene.ground, scene.sky)
    for k, tone in enumerate(tones):
        a, b, c = rng.random(3)
        start = layout.horizon + (1 - layout.horizon) * (0.30 + 0.32 * k)
        swell = 0.035 * np.sin((2.2 + 2.0 * a) * window.x + 6.28 * b)
        line = start + swell + 0.010 * np.sin(9 * window.x + 6.28 * c)
        colour = (far + (near - far) * (0.45 + 0.4 * k)) * tone
        fade = np.clip(1 - (window.y - line) / 0.22, 0, 1)
        cover = np.clip((window.y - line) / window.pixel + 0.5, 0, 1) * fade
        window.blend(cover.astype(np.float32), np.clip(colour, 0, 255))


def _meadow(window: Window, scene: Scene, layout: Layout, depth: Array) -> None:
    _folds(window, scene, layout, (1.10, 1.12))
    _grain(window, scene, depth, colour=(34, 84, 34), stretch=(1.0, 0.4))


def _desert(window: Window, scene: Scene, layout: Layout, depth: Array) -> None:
    _folds(window, scene, layout, (1.07, 1.10))
    _grain(window, scene, depth, colour=(150, 104, 54), stretch=(0.35, 1.0))


def _snow(window: Window, scene: Scene, layout: Layout, depth: Array) -> None:
    _folds(window, scene, layout, (1.05, 1.06))
    _grain(window, scene, depth, colour=(168, 188, 220), stretch=(0.6, 0.8))


def _grain(
    window: Window, scene: Scene, depth: Array, *, colour: tuple[float, float, float],
    stretch: tuple[float, float],
) -> None:  # fmt: skip
    """Blades, sand ribs or drifts: crossed waves too fine to show at small sizes."""
    rng = stream(scene, "skin")
    for octave in range(4):
        period = 0.030 / 1.8**octave
        shown = np.clip(period * (0.35 + depth) / window.pixel / 4.0 - 1.0, 0, 1) * (depth > 0)
        if not np.any(shown):
            continue
        p, q = 6.28 * rng.random(2)
        across = np.sin(6.28 * stretch[0] * window.x / period + p + 2 * np.sin(window.y / period))
        down = np.sin(6.28 * stretch[1] * window.y / period + q + 2 * np.sin(window.x / period))
        specks = np.clip(across * down, 0, 1) - 0.2  # mean 0
        window.blend(0.16 * shown * specks, colour)


DETAILS: dict[str, Callable[[Window, Scene, Layout, Array], None]] = {
    "sea": _sea,
    "meadow": _meadow,
    "desert": _desert,
    "snow": _snow,
}
