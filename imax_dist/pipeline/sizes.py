"""How large a poster and its passes are: by the request, a picture given, and the network's native size."""

from __future__ import annotations

import math

from imax_dist.errors import BadValue
from imax_dist.geometry import ImageSize, native_size
from imax_dist.method.cascade import cascade_scales
from imax_dist.method.presets import Method
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.request import LARGEST_AREA, Request
from imax_dist.pipeline.switches import uses_reference

DEFAULT_SCALE = 2
LEAST_NATIVE = 0.5
"""Of the native area: a pass from a small picture on its way to native size has at least so much."""


def poster_size(request: Request, spec: ModelSpec, picture: ImageSize | None) -> ImageSize:
    """What was asked for, or the default: a square of twice native size. Raises BadValue."""
    side = DEFAULT_SCALE * spec.settings.native_side
    return requested_size(request, picture) or ImageSize(side, side)


def requested_size(request: Request, picture: ImageSize | None) -> ImageSize | None:
    """``size``, else ``scale`` (2) times the ``picture`` given, with a region the picture's own; else None.

    Raises BadValue for more pixels than are rendered, or another size than that of a poster to be redone.
    """
    if request.region is not None and picture is not None:
        if request.size not in (None, str(picture)):
            raise BadValue(
                f"the poster is {picture}, and a region is rendered again at that size, not {request.size}"
            )
        return picture
    if request.size is not None:
        return ImageSize.parse(request.size)
    if picture is None:
        return None
    scale = DEFAULT_SCALE if request.scale is None else request.scale
    width, height = round(picture.width * scale), round(picture.height * scale)
    if width * height > LARGEST_AREA:
        raise BadValue(
            f"scale {scale:g} makes {width}x{height} of {picture}: {width * height / 1e6:.0f} megapixels, at "
            "most 1000 are rendered"
        )
    return ImageSize(width, height)


def pass_sizes(method: Method, spec: ModelSpec, *, before: ImageSize, target: ImageSize) -> list[ImageSize]:
    """What the passes after the picture ``before`` render, smallest first; the last is ``target``.

    ``before`` is the native picture, or one given, of its own size: doubling starts there, and of a list of
    scales against native those up to its size are left out. A small picture is not doubled below native size,
    and one that goes through the VAE only (strength 0) goes once.
    """
    if method.start.strength == 0.0:
        return [target]
    sizes: list[ImageSize] = []
    side = native_side = spec.settings.native_side
    native = native_size(target, native_side, spec.token_pixels)
    if before != native and method.cascade == "doubling":
        side = round(math.sqrt(before.area))
    scale = math.sqrt(target.area / (native.area if side == native_side else before.area))
    for own in cascade_scales(method.cascade, scale) if uses_reference(method) else ():
        size = native_size(target, round(own * side), spec.token_pixels)
        wanted = max(before.area, LEAST_NATIVE * native.area) < size.area < target.area
        if wanted and size not in sizes:
            sizes.append(size)
    return [*sizes, target]
