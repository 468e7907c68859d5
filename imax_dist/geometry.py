"""Sizes: pixels people ask for, latents the VAE makes, tokens the transformer sees."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from imax_dist.errors import BadValue

SMALLEST_SIDE = 16
LARGEST_SIDE = 65_536


SIZE = re.compile(r"\s*(\d{1,30})\s*[xX×]\s*(\d{1,30})\s*")


@dataclass(frozen=True)
class ImageSize:
    """Width and height in pixels."""

    width: int
    height: int

    def __post_init__(self) -> None:
        for side, length in (("width", self.width), ("height", self.height)):
            if not SMALLEST_SIDE <= length <= LARGEST_SIDE:
                raise BadValue(
                    f"size {self.width}x{self.height}: the {side} is {length} px, but a side must be "
                    f"between {SMALLEST_SIDE} and {LARGEST_SIDE} px"
                )

    @classmethod
    def parse(cls, text: str) -> ImageSize:
        """Read ``1024x1536`` (width x height). Raises BadValue on anything else."""
        match = SIZE.fullmatch(text)
        if match is None:
            raise BadValue(f"size {text[:80]!r} is not WIDTHxHEIGHT in pixels; write for example 1024x1536")
        return cls(width=int(match[1]), height=int(match[2]))

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def megapixels(self) -> float:
        return self.area / 1e6

    def padded(self, multiple: int) -> ImageSize:
        """The next size up whose sides are multiples of ``multiple``; cropped back at the end."""
        return ImageSize(
            width=math.ceil(self.width / multiple) * multiple,
            height=math.ceil(self.height / multiple) * multiple,
        )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Region:
    """A part of a picture, in pixels from its left upper corner."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Region:
        """Read ``X,Y,WIDTH,HEIGHT``. Raises BadValue on anything else, and for a side under 16 px."""
        match = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*", text)
        if match is None:
            raise BadValue(
                f"region {text[:80]!r} is not X,Y,WIDTH,HEIGHT in pixels; write for example 100,200,512,384"
            )
        region = cls(*(int(number) for number in match.groups()))
        if min(region.width, region.height) < SMALLEST_SIDE:
            raise BadValue(f"region {text[:80]}: its sides must be at least {SMALLEST_SIDE} px")
        return region

    def require_inside(self, size: ImageSize) -> None:
        """Raise BadValue unless all of it lies in a picture of ``size``."""
        right, bottom = self.left + self.width, self.top + self.height
        if right > size.width or bottom > size.height:
            raise BadValue(
                f"region {self} ends at {right},{bottom}, but the poster is {size}; give one inside it"
            )

    def moved(self, right: int, down: int) -> Region:
        return Region(self.left + right, self.top + down, self.width, self.height)

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"


@dataclass(frozen=True)
class LatentGrid:
    """Height and width of a latent, in latent pixels (image pixels / VAE factor)."""

    height: int
    width: int

    def tokens(self, patch: int) -> TokenGrid:
        return TokenGrid(height=self.height // patch, width=self.width // patch)


@dataclass(frozen=True)
class TokenGrid:
    """Rows and columns of image tokens."""

    height: int
    width: int

    @property
    def count(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class AxisScale:
    """How many times larger than native an image is along each axis (1.0 = native)."""

    height: float
    width: float

    @property
    def linear(self) -> float:
        """s = sqrt(L_extra / L_native), Sec. 2.3."""
        return math.sqrt(self.height * self.width)

    def divided(self, number: float) -> AxisScale:
        return AxisScale(self.height / number, self.width / number)

    @classmethod
    def between(cls, target: TokenGrid | LatentGrid, native: TokenGrid | LatentGrid) -> AxisScale:
        return cls(height=target.height / native.height, width=target.width / native.width)


def native_size(target: ImageSize, native_side: int, multiple: int) -> ImageSize:
    """The guidance image's size: ``target``'s aspect ratio at about ``native_side`` squared.

    Both sides are multiples of ``multiple``. A target no larger than native keeps its own size.
    """
    if target.area <= native_side**2:
        return target.padded(multiple)
    per_pixel = native_side / math.sqrt(target.area) / multiple
    return ImageSize(
        width=max(1, round(target.width * per_pixel)) * multiple,
        height=max(1, round(target.height * per_pixel)) * multiple,
    )
