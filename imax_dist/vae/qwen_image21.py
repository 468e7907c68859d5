"""Qwen-Image 2.1's autoencoder: levels with their input beside them, RMS norms, colours and opacity.

It was made for videos: where a level changes the number of frames, a picture is the last of two, of which the
first is zero as it goes down and left out as it goes up. The convolutions over time do not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imax_dist.vae.autoencoder import Autoencoder
from imax_dist.vae.layers import Beside, Convolution, Downsample, Head, Layer, Level, Stem, Upsample
from imax_dist.vae.qwen_layers import block, middle, rms_norm


def qwen_image21(config: Mapping[str, Any]) -> Autoencoder | None:
    """The layers of an AutoencoderKLQwenImage21; None for options that its published model has not."""
    other = config.get("attn_scales") or config.get("patch_size") not in (None, 1)
    if other or not config.get("is_residual", True) or config.get("out_channels", 4) != 4:
        return None
    network = _Network(config)
    return Autoencoder(
        tuple(network.encoder()),
        tuple(network.decoder()),
        tuple(network.over_time()),
        clamps=True,
        opacity=True,
    )


@dataclass(frozen=True)
class _Network:
    config: Mapping[str, Any]

    @property
    def times(self) -> list[int]:
        return [int(each) for each in self.config.get("dim_mult", (1, 2, 4, 8, 8))]

    @property
    def base(self) -> int:
        return int(self.config.get("base_dim", 96))

    @property
    def latent(self) -> int:
        return int(self.config.get("z_dim", 64))

    @property
    def depth(self) -> int:
        return int(self.config.get("num_res_blocks", 2))

    @property
    def halves_frames(self) -> list[bool]:
        return [bool(each) for each in self.config.get("temperal_downsample", (False, True, True, True))]

    def widths(self, half: str) -> list[tuple[int, int]]:
        """Channels before and behind each level, in order."""
        times = self.times
        if half == "encoder":
            return [(self.base * a, self.base * b) for a, b in zip([1, *times], times, strict=False)]
        base, times = int(self.config.get("decoder_base_dim") or self.base), times[::-1]
        return [(base * a, base * b) for a, b in zip([times[0], *times], times, strict=False)]

    def encoder(self) -> Iterator[Layer]:
        widths, halves = self.widths("encoder"), self.halves_frames
        yield Stem((Convolution("encoder.conv_in", int(self.config.get("in_channels", 4)), self.base),))
        for level, (before, width) in enumerate(widths):
            name = f"encoder.down_blocks.{level}"
            layers: list[Layer] = list(_blocks(name, self.depth, before, width))
            if level + 1 == len(widths):
                yield Level(tuple(layers), Beside("same", width))
                continue
            layers.append(Downsample(Convolution(f"{name}.downsampler.resample.1", width, width)))
            yield Level(tuple(layers), Beside("halved", width, 1 + halves[level]))
        last, twice = widths[-1][1], 2 * self.latent
        yield from middle("encoder", last)
        out = Convolution("encoder.conv_out", last, twice)
        yield Head(rms_norm("encoder.norm_out", last), out, Convolution("quant_conv", twice, twice, 1))

    def decoder(self) -> Iterator[Layer]:
        widths, doubles = self.widths("decoder"), self.halves_frames[::-1]
        first, last = widths[0][0], widths[-1][1]
        quant = Convolution("post_quant_conv", self.latent, self.latent, 1)
        yield Stem((quant, Convolution("decoder.conv_in", self.latent, first)))
        yield from middle("decoder", first)
        for level, (before, width) in enumerate(widths):
            name = f"decoder.up_blocks.{level}"
            layers: list[Layer] = list(_blocks(name, self.depth + 1, before, width))
            if level + 1 == len(widths):
                yield from layers
                continue
            layers.append(Upsample(Convolution(f"{name}.upsampler.resample.1", width, width)))
            yield Level(tuple(layers), Beside("doubled", width, 1 + doubles[level]))
        out = Convolution("decoder.conv_out", last, 4)
        yield Head(rms_norm("decoder.norm_out", last), out)

    def over_time(self) -> Iterator[Convolution]:
        """Weights that a picture does not meet."""
        for level, halves in enumerate(self.halves_frames):
            width = self.widths("encoder")[level][1]
            if halves:
                yield Convolution(f"encoder.down_blocks.{level}.downsampler.time_conv", width, width, 1)
        for level, doubles in enumerate(self.halves_frames[::-1]):
            width = self.widths("decoder")[level][1]
            if doubles:
                yield Convolution(f"decoder.up_blocks.{level}.upsampler.time_conv", width, 2 * width, 1)


def _blocks(name: str, count: int, before: int, width: int) -> Iterator[Layer]:
    for index in range(count):
        yield block(f"{name}.resnets.{index}", width if index else before, width)
