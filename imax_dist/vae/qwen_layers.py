"""What Qwen-Image's two autoencoders are made of alike: RMS norms, blocks of two convolutions, a middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from imax_dist.vae.layers import Attention, Convolution, Layer, Norm, ResBlock

Convolve: TypeAlias = Callable[[str, int, int, int], Convolution]
"""A convolution by name, channels before and behind it, and the side of its kernel."""


def rms_norm(name: str, channels: int, dims: int = 3) -> Norm:
    """Over the channels of each pixel, with a weight of so many ``dims`` behind them."""
    return Norm(name, channels, groups=None, dims=dims)


def block(name: str, inputs: int, outputs: int, convolution: Convolve = Convolution) -> ResBlock:
    """One residual block under diffusers' names."""
    return ResBlock(
        rms_norm(f"{name}.norm1", inputs),
        convolution(f"{name}.conv1", inputs, outputs, 3),
        rms_norm(f"{name}.norm2", outputs),
        convolution(f"{name}.conv2", outputs, outputs, 3),
        convolution(f"{name}.conv_shortcut", inputs, outputs, 1) if inputs != outputs else None,
    )


def middle(half: str, width: int, convolution: Convolve = Convolution) -> Iterator[Layer]:
    """Attention between two blocks, of the ``half`` encoder or decoder."""
    name, part = f"{half}.mid_block", f"{half}.mid_block.attentions.0"
    norm = rms_norm(f"{part}.norm", width, dims=2)
    yield block(f"{name}.resnets.0", width, width, convolution)
    yield Attention(norm, (f"{part}.to_qkv",), f"{part}.proj", width, dims=2)
    yield block(f"{name}.resnets.1", width, width, convolution)
