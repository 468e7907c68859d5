"""HunyuanImage 2.1's autoencoder: 32 pixels a latent pixel, by pixel shuffles with shortcuts beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.layers import (
    Attention,
    Convolution,
    Head,
    Layer,
    Norm,
    ResBlock,
    ShuffleDown,
    ShuffleUp,
    Stem,
)

GROUPS = 32
"""Of every norm; fixed in diffusers' classes."""


def hunyuan_image(config: Mapping[str, Any]) -> Autoencoder | None:
    """The layers of an AutoencoderKLHunyuanImage; None where a residual block changes its channels.

    Its class adds such a block's input to a map of other channels, which torch refuses.
    """
    network = _Network(config)
    matched = config.get("downsample_match_channel", True) and config.get("upsample_match_channel", True)
    between = zip(network.widths, network.widths[1:], strict=False)
    narrow = any(a != b for level, (a, b) in enumerate(between) if level >= network.halvings)
    if not matched or narrow:
        return None
    return Autoencoder(tuple(network.encoder()), tuple(network.decoder()))


@dataclass(frozen=True)
class _Network:
    config: Mapping[str, Any]

    @property
    def widths(self) -> list[int]:
        """Channels of each level, from the picture's to the latents'."""
        return [int(width) for width in self.config["block_out_channels"]]

    @property
    def halvings(self) -> int:
        ratio = int(self.config["spatial_compression_ratio"])
        return min(ratio.bit_length() - 1, len(self.widths) - 1)

    @property
    def depth(self) -> int:
        return int(self.config["layers_per_block"])

    @property
    def latent(self) -> int:
        return int(self.config["latent_channels"])

    def encoder(self) -> Iterator[Layer]:
        widths, name = self.widths, "encoder.down_blocks"
        yield Stem((Convolution("encoder.conv_in", int(self.config["in_channels"]), widths[0]),))
        number = 0
        for level, width in enumerate(widths):
            for _ in range(self.depth):
                yield _block(f"{name}.{number}", width)
                number += 1
            if level < self.halvings:
                yield ShuffleDown(Convolution(f"{name}.{number}.conv", width, widths[level + 1] // 4))
                number += 1
        yield from _middle("encoder", widths[-1])
        out = Convolution("encoder.conv_out", widths[-1], 2 * self.latent)
        yield Head(_norm("encoder.norm_out", widths[-1]), out, adds_means=True)

    def decoder(self) -> Iterator[Layer]:
        widths, name = self.widths[::-1], "decoder.up_blocks"
        first = Convolution("decoder.conv_in", self.latent, widths[0])
        yield Stem((first,), repeats=widths[0] // self.latent)
        yield from _middle("decoder", widths[0])
        number = 0
        for level, width in enumerate(widths):
            for _ in range(self.depth + 1):
                yield _block(f"{name}.{number}", width)
                number += 1
            if level < self.halvings:
                yield ShuffleUp(Convolution(f"{name}.{number}.conv", width, 4 * widths[level + 1]))
                number += 1
        out = Convolution("decoder.conv_out", widths[-1], int(self.config["out_channels"]))
        yield Head(_norm("decoder.norm_out", widths[-1]), out)


def _norm(name: str, channels: int) -> Norm:
    return Norm(name, channels, groups=GROUPS)


def _block(name: str, width: int) -> ResBlock:
    norms = (_norm(f"{name}.norm{number}", width) for number in (1, 2))
    convs = (Convolution(f"{name}.conv{number}", width, width) for number in (1, 2))
    return ResBlock(next(norms), next(convs), next(norms), next(convs), None)


def _middle(half: str, width: int) -> Iterator[Layer]:
    name, part = f"{half}.mid_block", f"{half}.mid_block.attentions.0"
    yield _block(f"{name}.resnets.0", width)
    projections = tuple(f"{part}.to_{each}" for each in "qkv")
    yield Attention(_norm(f"{part}.norm", width), projections, f"{part}.proj", width, dims=2)
    yield _block(f"{name}.resnets.1", width)
