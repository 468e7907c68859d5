"""Draw a scene at any size: the same picture, with the detail its pixels can hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imax_dist.errors import BadValue
from imax_dist.study.scenes.canvas import Canvas, View
from imax_dist.study.scenes.ground import paint_ground
from imax_dist.study.scenes.layout import lay_out
from imax_dist.study.scenes.objects import paint_objects
from imax_dist.study.scenes.sky import (
    paint_air,
    paint_birds,
    paint_clouds,
    paint_light,
    paint_mountains,
    paint_stars,
)
from imax_dist.study.scenes.spec import Scene

SMALLEST = 16
_LAYERS = (
    paint_air, paint_stars, paint_light, paint_clouds, paint_birds, paint_mountains, paint_ground,
    paint_objects,
)  # fmt: skip


def render(scene: Scene, height: int, width: int, *, zoom: View | None = None) -> npt.NDArray[np.uint8]:
    """The scene as (height, width, 3) sRGB bytes.

    The layout depends on width / height, never on the number of pixels. ``zoom`` draws only a window
    of the scene, with the detail its pixels can hold. Raises BadValue below 16 pixels a side.
    """
    if min(height, width) < SMALLEST:
        raise BadValue(f"scene: {width}x{height} is too small; ask for {SMALLEST} pixels a side or more")
    canvas = Canvas(height, width, zoom or View())
    layout = lay_out(scene, width / height)
    for paint in _LAYERS:
        paint(canvas, scene, layout)
    return (np.clip(canvas.image, 0, 255) + 0.5).astype(np.uint8)
