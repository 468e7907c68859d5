"""AutoencoderKL (Stable Diffusion, FLUX.1, Lumina, Z-Image) and FLUX.2's: 2D convolutions and group norms.

FLUX.2 also normalises patches of latents; that is its FlowModel's part, outside of both halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.layers import (
    Attention,
    Convolution,
    Downsample,
    Head,
    Layer,
    Norm,
    ResBlock,
    Stem,
    Upsample,
)

BLOCKS = {"DownEncoderBlock2D", "UpDecoderBlock2D"}


def autoencoder_kl(config: Mapping[str, Any]) -> Autoencoder | None:
    """The layers of an AutoencoderKL or AutoencoderKLFlux2; None if its options ask for other blocks."""
    kinds = {*config.get("down_block_types", ()), *config.get("up_block_types", ())}
    known = kinds <= BLOCKS and config.get("act_fn", "silu") == "silu"
    if not known or not {"latent_channels", "block_out_channels"} <= set(config):
        return None
    network = _Network(config)
    return Autoencoder(tuple(network.encoder()), tuple(network.decoder()))


@dataclass(frozen=True)
class _Network:
    config: Mapping[str, Any]

    def encoder(self) -> Iterator[Layer]:
        config, widths = self.config, [int(c) for c in self.config["block_out_channels"]]
        twice = 2 * int(config["latent_channels"])
        before = widths[0]
        yield Stem((Convolution("encoder.conv_in", int(config.get("in_channels", 3)), before),))
        for level, width in enumerate(widths):
            name = f"encoder.down_blocks.{level}"
            for index in range(self.depth):
                yield self.block(f"{name}.resnets.{index}", width if index else before, width)
            before = width
            if level + 1 < len(widths):
                yield Downsample(Convolution(f"{name}.downsamplers.0.conv", width, width))
        yield from self.middle("encoder", before)
        quant = Convolution("quant_conv", twice, twice, 1)
        out = Convolution("encoder.conv_out", before, twice)
        norm = self.norm("encoder.conv_norm_out", before)
        yield Head(norm, out, quant if config.get("use_quant_conv", True) else None)

    def decoder(self) -> Iterator[Layer]:
        config, latent = self.config, int(self.config["latent_channels"])
        levels = config.get("decoder_block_out_channels") or config["block_out_channels"]
        widths = [int(c) for c in reversed(levels)]
        before = widths[0]
        quant = Convolution("post_quant_conv", latent, latent, 1)
        first = Convolution("decoder.conv_in", latent, before)
        yield Stem((quant, first) if config.get("use_post_quant_conv", True) else (first,))
        yield from self.middle("decoder", before)
        for level, width in enumerate(widths):
            name = f"decoder.up_blocks.{level}"
            for index in range(self.depth + 1):
                yield self.block(f"{name}.resnets.{index}", width if index else before, width)
            before = width
            if level + 1 < len(widths):
                yield Upsample(Convolution(f"{name}.upsamplers.0.conv", width, width))
        out = Convolution("decoder.conv_out", before, int(config.get("out_channels", 3)))
        yield Head(self.norm("decoder.conv_norm_out", before), out)

    def middle(self, half: str, width: int) -> Iterator[Layer]:
        name, part = f"{half}.mid_block", f"{half}.mid_block.attentions.0"
        yield self.block(f"{name}.resnets.0", width, width)
        if self.config.get("mid_block_add_attention", True):
            projections = tuple(f"{part}.to_{each}" for each in "qkv")
            yield Attention(self.norm(f"{part}.group_norm", width), projections, f"{part}.to_out.0", width)
        yield self.block(f"{name}.resnets.1", width, width)

    def block(self, name: str, inputs: int, outputs: int) -> ResBlock:
        return ResBlock(
            self.norm(f"{name}.norm1", inputs),
            Convolution(f"{name}.conv1", inputs, outputs),
            self.norm(f"{name}.norm2", outputs),
            Convolution(f"{name}.conv2", outputs, outputs),
            Convolution(f"{name}.conv_shortcut", inputs, outputs, 1) if inputs != outputs else None,
        )

    def norm(self, name: str, channels: int) -> Norm:
        return Norm(name, channels, groups=int(self.config.get("norm_num_groups", 32)))

    @property
    def depth(self) -> int:
        """Residual blocks a level of the encoder; the decoder has one more. The classes' defaults differ."""
        default = 2 if self.config.get("_class_name") == "AutoencoderKLFlux2" else 1
        return int(self.config.get("layers_per_block", default))
