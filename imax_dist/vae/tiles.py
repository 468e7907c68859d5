"""Which autoencoders of diffusers have blended tiles, at which sizes, and which way."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any


class Tiles(Enum):
    """When a picture goes by tiles, if its plan says so."""

    NEVER = auto()
    """The VAE has none."""
    LARGE = auto()
    """Above the size of one tile, as diffusers does it."""
    DECODING = auto()
    """Above the size of one tile, and only on the way out."""
    ALWAYS = auto()
    """At every size, as in the authors' code: a picture of one tile has edges of its own, too."""


def tiles_of(vae: Any) -> Tiles:
    """What a loaded VAE of diffusers offers."""
    if not hasattr(vae, "enable_tiling"):
        return Tiles.NEVER
    from diffusers import AutoencoderKL, AutoencoderKLHunyuanImage

    if isinstance(vae, AutoencoderKL):
        return Tiles.ALWAYS
    # diffusers' tiled_encode of HunyuanImage's asks pictures for a fifth dimension
    return Tiles.DECODING if isinstance(vae, AutoencoderKLHunyuanImage) else Tiles.LARGE
