"""The upper half of a scene: air, light, stars, clouds, birds, mountains."""

from __future__ import annotations

import numpy as np

from imax_dist.study.scenes import distance
from imax_dist.study.scenes.canvas import Array, Canvas
from imax_dist.study.scenes.layout import Layout, stream
from imax_dist.study.scenes.palette import BIRD, CLOUDS, LIGHTS, RANGES, SKIES, STAR, glow_around
from imax_dist.study.scenes.spec import Scene


def paint_air(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """A three-stop gradient down to the horizon, brighter around the light."""
    stops = np.asarray(SKIES[scene.sky], np.float32)
    down = np.clip(canvas.y / layout.horizon, 0, 1)
    column = np.stack([np.interp(down, (0.0, 0.55, 1.0), stops[:, c]) for c in range(3)], -1)
    whole = canvas.whole()
    whole.blend(np.ones((1, 1), np.float32), column[:, None].astype(np.float32))
    away = np.hypot(whole.x - layout.light_x, whole.y - layout.light_y) / layout.light_radius
    whole.blend(glow_around(away).astype(np.float32), np.asarray(LIGHTS[scene.light], np.float32))


def paint_stars(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """Stars of a fixed relative size; one smaller than a pixel keeps its total light."""
    if scene.sky != "dark":
        return
    rng = stream(scene, "stars")
    for u, v, w in rng.random((int(34 * max(1.0, layout.aspect)), 3)):
        x, y, radius = u * layout.aspect, v * 0.9 * layout.horizon, 0.0030 + 0.0030 * w**3
        window = canvas.window(x - radius, y - radius, x + radius, y + radius)
        if window.empty or np.hypot(x - layout.light_x, y - layout.light_y) < 0.03 + layout.light_radius:
            continue
        drawn = max(radius, 0.6 * canvas.pixel)
        faint = min(1.0, (radius / drawn) ** 2)
        window.fill(distance.circle(window.x, window.y, (x, y), drawn), STAR, faint)


def paint_light(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """The disc of the sun or moon; a moon shows faint maria where there are pixels for them."""
    x, y, radius = layout.light_x, layout.light_y, layout.light_radius
    window = canvas.window(x - radius, y - radius, x + radius, y + radius)
    if window.empty:
        return
    colour = np.asarray(LIGHTS[scene.light], np.float32)
    window.fill(distance.circle(window.x, window.y, (x, y), radius), colour)
    if scene.body != "moon":
        return
    for u, v, w in stream(scene, "light").random((6, 3)):
        turn, out, r = 6.28 * u, 0.7 * radius * v, radius * (0.08 + 0.12 * w)
        spot = (x + out * np.cos(turn), y + out * np.sin(turn))
        shown = 0.22 * window.sharpness(2 * r)
        window.fill(distance.circle(window.x, window.y, spot, r), 0.8 * colour, shown)


def paint_clouds(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """Flat-bottomed heaps, clear of the light."""
    if "clouds" not in scene.extras:
        return
    rng = stream(scene, "clouds")
    unit = min(1.0, layout.aspect)
    colour = np.asarray(CLOUDS[scene.sky], np.float32)
    drawn = 0
    for _ in range(40):
        width = unit * (0.24 + 0.16 * rng.random())
        x = layout.aspect * rng.random()
        base = 0.10 + 0.28 * rng.random()
        bumps = rng.random((5, 2))
        near = abs(x - layout.light_x) < width * 0.62 + layout.light_radius * 1.3
        if near and abs(base - 0.15 * width - layout.light_y) < 0.2 * width + 1.3 * layout.light_radius:
            continue
        _paint_cloud(canvas, (x, base, width), bumps, colour)
        drawn += 1
        if drawn == round(3 * max(1.0, layout.aspect)):
            return


def _paint_cloud(canvas: Canvas, place: tuple[float, float, float], bumps: Array, colour: Array) -> None:
    """One heap on a flat foot; ``place`` is its middle, foot and width."""
    x, base, width = place
    window = canvas.window(x - 0.55 * width, base - 0.4 * width, x + 0.55 * width, base)
    if window.empty:
        return
    shape = np.full(np.broadcast_shapes(window.x.shape, window.y.shape), 9.0, np.float32)
    for k, (u, v) in enumerate(bumps):
        across = (k - 2) / 2
        radius = width * (0.10 + 0.09 * (1 - across * across) + 0.05 * u)
        centre = (x + 0.36 * width * across, base - width * (0.02 + 0.06 * v * (1 - abs(across))))
        shape = np.minimum(shape, distance.circle(window.x, window.y, centre, radius))
    shape = np.maximum(shape, window.y - base)
    shade = np.clip((window.y - base) / (0.3 * width) + 1, 0, 1)[..., None]
    window.fill(shape, colour * (1 - 0.10 * shade), 0.94)


def paint_birds(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """Two curved strokes a bird, in a loose flock."""
    if "birds" not in scene.extras:
        return
    rng = stream(scene, "birds")
    unit = min(1.0, layout.aspect)
    side = 1.0 if layout.light_x < 0.5 * layout.aspect else -1.0
    x0 = layout.light_x + side * (layout.light_radius + 0.16 * unit)
    y0 = 0.07 + 0.1 * rng.random()
    for k in range(4):
        span = unit * (0.030 + 0.014 * rng.random())
        x = x0 + side * unit * (0.11 * k + 0.03 * rng.random())
        y = y0 + unit * (0.05 * (k % 2) + 0.04 * rng.random())
        window = canvas.window(x - span, y - span, x + span, y + span)
        if window.empty or not 1.2 * span < x < layout.aspect - 1.2 * span:
            continue
        for turn in (-1, 1):
            wing = ((x, y), (x + turn * span, y - 0.55 * span))
            window.fill(distance.segment(window.x, window.y, wing, 0.16 * span), BIRD)


def paint_mountains(canvas: Canvas, scene: Scene, layout: Layout) -> None:
    """Two ranges, hazy towards their feet; the crest grows finer with the pixels."""
    if "mountains" not in scene.extras:
        return
    rng = stream(scene, "mountains")
    haze = np.asarray(SKIES[scene.sky][2], np.float32)
    rock = np.asarray(RANGES[scene.sky], np.float32)
    for depth, mist in ((1.0, 0.45), (0.62, 0.0)):
        height = depth * (layout.horizon - 0.42) * (0.9 + 0.1 * rng.random())
        window = canvas.window(0.0, layout.horizon - height, layout.aspect, layout.horizon)
        if window.empty:
            return
        crest = layout.horizon - height * _crest(window.x, window.pixel, rng)
        fade = np.clip((window.y - crest) / (0.16 * depth), 0, 1)[..., None]
        colour = rock + (haze - rock) * (mist + 0.35 * fade)
        window.fill(crest - window.y, colour)


def _crest(x: Array, pixel: float, rng: np.random.Generator) -> Array:
    """A ridge line in about 0.35..1: folded triangle waves, each half as long as the one before."""
    wave, total = np.zeros_like(x), 0.0
    for octave in range(8):
        period, phase = 0.55 / 1.9**octave, float(rng.random())
        strength = 0.5**octave
        total += strength
        seen = np.clip(period / pixel / 3.0 - 1.0, 0, 1)
        wave = wave + seen * strength * (2 * np.abs((x / period + phase) % 1 - 0.5) * 2 - 1)
    return (0.68 + 0.32 * wave / total * 1.6).clip(0.3, 1.0)
