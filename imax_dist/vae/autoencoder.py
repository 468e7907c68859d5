"""An autoencoder as two rows of layers, and what follows from them: sizes, names, where a convolution stands.

One description serves all who need it: the walk computes with the weights it names, a plan counts its sizes
without any weights, and ``networks`` says which published autoencoders it fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from imax_dist.vae.layers import (
    Attention,
    Convolution,
    Downsample,
    Layer,
    Level,
    ShuffleDown,
    ShuffleUp,
    Upsample,
)

Half: TypeAlias = Literal["encoder", "decoder"]


def simple(layers: Iterable[Layer]) -> Iterator[Layer]:
    """The layers, those of levels one by one."""
    for layer in layers:
        yield from simple(layer.layers) if isinstance(layer, Level) else (layer,)


class Placed(NamedTuple):
    """A convolution where it stands: ``scale`` is its output's side in latent pixels' sides."""

    conv: Convolution
    scale: int
    doubles: bool
    """Behind a layer that doubles the map."""


@dataclass(frozen=True)
class Autoencoder:
    """Both halves, from a stem to a head each, and what is stored beside them."""

    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    unused: tuple[Convolution, ...] = ()
    """Over time, which a picture has none of."""
    clamps: bool = False
    """Whether its own ``decode`` ends with a clamp to [-1, 1]."""

    opacity: bool = False
    """Whether its pictures have a fourth channel: 1 of what goes in, left out of what comes out."""

    def layers(self, half: Half) -> tuple[Layer, ...]:
        return self.encoder if half == "encoder" else self.decoder

    @cached_property
    def factor(self) -> int:
        """Picture pixels a latent pixel's side."""
        return int(2 ** sum(isinstance(layer, Upsample | ShuffleUp) for layer in simple(self.decoder)))

    @cached_property
    def latent_channels(self) -> int:
        return self.placed("decoder")[0].conv.inputs

    @cached_property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """All of them by name."""
        parts = (*self.encoder, *self.decoder, *self.unused)
        return {name: shape for part in parts for name, shape in part.parameters()}

    @cached_property
    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters.values())

    @cached_property
    def attention_width(self) -> int:
        """Channels of the attention's single head; 0 without one."""
        return max((x.channels for x in simple(self.decoder) if isinstance(x, Attention)), default=0)

    def placed(self, half: Half) -> tuple[Placed, ...]:
        """Every convolution of a half, in order."""
        return self._placed[half]

    @cached_property
    def _placed(self) -> dict[Half, tuple[Placed, ...]]:
        return {"encoder": tuple(self._place("encoder")), "decoder": tuple(self._place("decoder"))}

    def _place(self, half: Half) -> Iterator[Placed]:
        scale = 1 if half == "decoder" else self.factor
        for layer in simple(self.layers(half)):
            if isinstance(layer, Upsample):
                scale *= 2
            elif isinstance(layer, Downsample):
                scale //= 2
            for conv in layer.convolutions():
                yield Placed(conv, scale, isinstance(layer, Upsample))
            if isinstance(layer, ShuffleUp):
                scale *= 2
            elif isinstance(layer, ShuffleDown):
                scale //= 2

    @cached_property
    def widest(self) -> int:
        """Most channels that a map of the picture's own size has."""
        placed = (*self.placed("encoder"), *self.placed("decoder"))
        return max(each.conv.inputs for each in placed if each.scale == self.factor)
