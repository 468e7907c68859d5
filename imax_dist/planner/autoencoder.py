"""The VAE's cost from its config.json: every convolution, the mid-block attention, the fullest feature maps.

The network is diffusers' AutoencoderKL. Sizes are counted at the latents' resolution and grow by 2 a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from imax_dist.planner.unknown import UnknownCost


class Convolution(NamedTuple):
    """``kernel`` x ``kernel``; ``scale`` is its output's side in latent pixels' sides."""

    inputs: int
    outputs: int
    kernel: int
    scale: int
    doubles: bool = False
    """Behind a layer that doubles the map."""

    @property
    def flops(self) -> float:
        """A latent pixel."""
        return 2.0 * self.kernel**2 * self.inputs * self.outputs * self.scale**2


@dataclass(frozen=True)
class Autoencoder:
    """What both halves compute."""

    parameters: int
    encoder: tuple[Convolution, ...]
    decoder: tuple[Convolution, ...]
    attention_width: int
    """Channels of the mid-block's single attention head; 0 without one."""
    channels: tuple[int, ...]
    """Of each level, from the picture's to the latents'."""
    depth: int
    """Residual blocks a level of the encoder; the decoder has one more."""

    @property
    def factor(self) -> int:
        """Picture pixels a latent pixel's side."""
        return int(2 ** (len(self.channels) - 1))

    def layers(self, half: str) -> tuple[Convolution, ...]:
        """Of ``encoder`` or ``decoder``, in order."""
        found: tuple[Convolution, ...] = getattr(self, half)
        return found

    def fullest(self, half: str, latent_pixels: float) -> float:
        """Elements of the largest pair of maps that one convolution reads and writes."""
        return max((c.inputs + c.outputs) * c.scale**2 for c in self.layers(half)) * latent_pixels

    def convolution_flops(self, half: str, latent_pixels: float) -> float:
        """Of ``encoder`` or ``decoder`` for an image of so many latent pixels."""
        return sum(c.flops for c in self.layers(half)) * latent_pixels

    def attention_flops(self, latent_pixels: float) -> float:
        """Of one half's mid block: four projections and the products over all positions."""
        width = self.attention_width
        return 8.0 * width**2 * latent_pixels + 4.0 * latent_pixels**2 * width

    def operations(self, half: str) -> int:
        """Kernels started: about four a convolution (norm, activation, convolution, sum)."""
        return 4 * len(self.layers(half))


def autoencoder_of(config: Mapping[str, Any]) -> Autoencoder:
    """AutoencoderKL of ``config``. Raises UnknownCost for another kind of VAE."""
    if not {"block_out_channels", "latent_channels"} <= set(config):
        raise UnknownCost(f"the cost of a {config.get('_class_name')} is not known, only AutoencoderKL's")
    channels = [int(c) for c in config["block_out_channels"]]
    latent, colours = int(config["latent_channels"]), int(config.get("in_channels", 3))
    depth, last = int(config.get("layers_per_block", 1)), channels[-1]
    attends = bool(config.get("mid_block_add_attention", True))
    encoder = list(_encoder(channels, depth, colours))
    decoder = list(_decoder(channels, depth, int(config.get("out_channels", 3))))
    encoder += [*_mid(last), Convolution(last, 2 * latent, 3, 1)]
    decoder = [Convolution(latent, last, 3, 1), *_mid(last), *decoder]
    if config.get("use_quant_conv", True):
        encoder.append(Convolution(2 * latent, 2 * latent, 1, 1))
    if config.get("use_post_quant_conv", True):
        decoder.insert(0, Convolution(latent, latent, 1, 1))
    convolutions = sum(c.kernel**2 * c.inputs * c.outputs + c.outputs for c in encoder + decoder)
    attention = 2 * (4 * (last * last + last) + 2 * last) if attends else 0
    norms = _norms(channels, depth)
    return Autoencoder(
        parameters=convolutions + attention + norms,
        encoder=tuple(encoder),
        decoder=tuple(decoder),
        attention_width=last if attends else 0,
        channels=tuple(channels),
        depth=depth,
    )


def _resnet(inputs: int, outputs: int, scale: int) -> Iterator[Convolution]:
    yield Convolution(inputs, outputs, 3, scale)
    yield Convolution(outputs, outputs, 3, scale)
    if inputs != outputs:
        yield Convolution(inputs, outputs, 1, scale)


def _mid(width: int) -> Iterator[Convolution]:
    yield from _resnet(width, width, 1)
    yield from _resnet(width, width, 1)


def _encoder(channels: list[int], depth: int, colours: int) -> Iterator[Convolution]:
    scale = 2 ** (len(channels) - 1)
    yield Convolution(colours, channels[0], 3, scale)
    before = channels[0]
    for level, width in enumerate(channels):
        for index in range(depth):
            yield from _resnet(before if index == 0 else width, width, scale)
        before = width
        if level + 1 < len(channels):
            scale //= 2
            yield Convolution(width, width, 3, scale)


def _decoder(channels: list[int], depth: int, colours: int) -> Iterator[Convolution]:
    scale, before = 1, channels[-1]
    for level, width in enumerate(reversed(channels)):
        for index in range(depth + 1):
            yield from _resnet(before if index == 0 else width, width, scale)
        before = width
        if level + 1 < len(channels):
            scale *= 2
            yield Convolution(width, width, 3, scale, doubles=True)
    yield Convolution(channels[0], colours, 3, scale)


def _norms(channels: list[int], depth: int) -> int:
    """Weights and biases of the group norms of both halves."""
    last = channels[-1]
    total = 2 * (4 * 2 * last) + 2 * last + 2 * channels[0]
    for widths, count in ((channels, depth), (channels[::-1], depth + 1)):
        before = widths[0]
        for width in widths:
            for index in range(count):
                total += 2 * (before if index == 0 else width) + 2 * width
            before = width
    return total
