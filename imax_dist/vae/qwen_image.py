"""Qwen-Image's autoencoder, of which a picture is the first frame: RMS norms, causal convolutions over time.

Before a first frame there are zeros, so that only the last of a kernel's frames sees it, and the convolutions
that change the number of frames do not run. No norm looks beyond a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.layers import Convolution, Downsample, Head, Layer, Stem, Upsample
from imax_dist.vae.qwen_layers import block, middle, rms_norm


def qwen_image(config: Mapping[str, Any]) -> Autoencoder | None:
    """The layers of an AutoencoderKLQwenImage; None with attention outside of the middle."""
    if config.get("attn_scales"):
        return None
    network = _Network(config)
    return Autoencoder(
        tuple(network.encoder()), tuple(network.decoder()), tuple(network.over_time()), clamps=True
    )


@dataclass(frozen=True)
class _Network:
    config: Mapping[str, Any]

    @property
    def widths(self) -> list[int]:
        """Channels of each level, from the picture's to the latents'."""
        base = int(self.config.get("base_dim", 96))
        return [base * int(times) for times in self.config.get("dim_mult", (1, 2, 4, 4))]

    @property
    def latent(self) -> int:
        return int(self.config.get("z_dim", 16))

    @property
    def depth(self) -> int:
        return int(self.config.get("num_res_blocks", 2))

    @property
    def colours(self) -> int:
        return int(self.config.get("input_channels", 3))

    def encoder(self) -> Iterator[Layer]:
        before = int(self.config.get("base_dim", 96))
        yield Stem((_causal("encoder.conv_in", self.colours, before),))
        number = 0
        for level, width in enumerate(self.widths):
            for _ in range(self.depth):
                yield block(f"encoder.down_blocks.{number}", before, width, _causal)
                before, number = width, number + 1
            if level + 1 < len(self.widths):
                yield Downsample(Convolution(f"encoder.down_blocks.{number}.resample.1", width, width))
                number += 1
        yield from middle("encoder", before, _causal)
        twice = 2 * self.latent
        out = _causal("encoder.conv_out", before, twice)
        yield Head(rms_norm("encoder.norm_out", before), out, _causal("quant_conv", twice, twice, 1))

    def decoder(self) -> Iterator[Layer]:
        before = self.widths[-1]
        quant = _causal("post_quant_conv", self.latent, self.latent, 1)
        yield Stem((quant, _causal("decoder.conv_in", self.latent, before)))
        yield from middle("decoder", before, _causal)
        for level, width in enumerate(reversed(self.widths)):
            name = f"decoder.up_blocks.{level}"
            for index in range(self.depth + 1):
                yield block(f"{name}.resnets.{index}", before, width, _causal)
                before = width
            if level + 1 < len(self.widths):
                before = width // 2
                yield Upsample(Convolution(f"{name}.upsamplers.0.resample.1", width, before))
        yield Head(rms_norm("decoder.norm_out", before), _causal("decoder.conv_out", before, self.colours))

    def over_time(self) -> Iterator[Convolution]:
        """The convolutions that run from the second frame on."""
        levels, last = self.widths, len(self.widths) - 1
        downs = [bool(each) for each in self.config.get("temperal_downsample", (False, True, True))]
        for level, halves in enumerate(downs[:last]):
            number = (level + 1) * (self.depth + 1) - 1
            if halves:
                name = f"encoder.down_blocks.{number}.time_conv"
                yield Convolution(name, levels[level], levels[level], 1, frames=3)
        for level, doubles in enumerate(downs[::-1][:last]):
            width = levels[last - level]
            if doubles:
                name = f"decoder.up_blocks.{level}.upsamplers.0.time_conv"
                yield Convolution(name, width, 2 * width, 1, frames=3)


def _causal(name: str, inputs: int, outputs: int, kernel: int = 3) -> Convolution:
    return Convolution(name, inputs, outputs, kernel, frames=kernel)
