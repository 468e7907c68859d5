"""The colours of the scenes, one table a kind. All are sRGB triples in 0..255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]
Array = npt.NDArray[Any]

SKIES: dict[str, tuple[Colour, Colour, Colour]] = {  # top, middle, horizon
    "blue": ((52, 118, 204), (122, 182, 236), (182, 216, 238)),
    "pink": ((176, 104, 172), (240, 164, 190), (254, 216, 206)),
    "orange": ((206, 84, 50), (242, 146, 78), (254, 196, 122)),
    "dark": ((12, 16, 50), (28, 36, 92), (66, 80, 142)),
}
CLOUDS: dict[str, Colour] = {
    "blue": (242, 247, 252),
    "pink": (255, 232, 232),
    "orange": (255, 220, 178),
    "dark": (92, 104, 160),
}
RANGES: dict[str, Colour] = {  # the mountains, tinted by the air
    "blue": (92, 116, 156),
    "pink": (146, 104, 150),
    "orange": (150, 88, 82),
    "dark": (38, 44, 84),
}
LIGHTS: dict[str, Colour] = {
    "red": (218, 40, 34),
    "yellow": (255, 232, 84),
    "white": (253, 252, 248),
}
GROUNDS: dict[str, tuple[Colour, Colour]] = {  # at the horizon, at the viewer's feet
    "sea": ((112, 170, 210), (24, 80, 150)),
    "meadow": ((158, 196, 104), (58, 130, 54)),
    "desert": ((240, 212, 160), (206, 158, 90)),
    "snow": ((242, 245, 251), (208, 220, 238)),
}
PAINTS: dict[str, Colour] = {  # what the captioned objects are painted with
    "red": (206, 36, 44),
    "purple": (118, 34, 166),
    "black": (30, 28, 34),
    "white": (247, 245, 240),
}
NIGHT: Colour = (0.50, 0.56, 0.74)  # how moonlight dims the ground, per channel
WOOD: Colour = (104, 66, 38)
ROOF: Colour = (98, 74, 66)
LAMP: Colour = (255, 216, 112)
BIRD: Colour = (46, 44, 58)
STAR: Colour = (255, 250, 224)


def glow_around(away: Array) -> Array:
    """Share of a light's colour in the air, ``away`` radii from its centre."""
    glow: Array = 0.5 * np.exp(-((away / 2.1) ** 2))
    return glow


def ground_colours(ground: str, sky: str) -> tuple[Array, Array]:
    """Colours of ``ground`` at the horizon and at the viewer's feet under ``sky``: two (3,) arrays."""
    far, near = (np.asarray(c, np.float32) for c in GROUNDS[ground])
    far = 0.75 * far + 0.25 * np.asarray(SKIES[sky][2], np.float32)
    if sky != "dark":
        return far, near
    dim = np.asarray(NIGHT, np.float32)
    return far * dim, near * dim
