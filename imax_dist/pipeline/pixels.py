"""Between what networks take, (1, 3, H, W) in [-1, 1], and what people see, (H, W, 3) in [0, 1]."""

from __future__ import annotations

from torch import Tensor

from imax_dist.shapes import Picture, Pixels


def shown(pixels: Tensor) -> Tensor:
    """The same values in [0, 1], clamped; any shape."""
    return (pixels / 2 + 0.5).clamp(0.0, 1.0)


def as_picture(pixels: Pixels) -> Picture:
    """The first of ``pixels``, to look at."""
    return shown(pixels[0]).permute(1, 2, 0).contiguous()


def as_pixels(picture: Picture) -> Pixels:
    """A picture, for a network."""
    return 2.0 * picture.permute(2, 0, 1)[None].contiguous() - 1.0
