"""What an autoencoder's halves are made of: layers, with the names and sizes of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Shapes: TypeAlias = Iterator[tuple[str, tuple[int, ...]]]
"""Names and shapes of parameters, as in the VAE's own state."""


@dataclass(frozen=True)
class Convolution:
    """``kernel`` x ``kernel`` with zeros at the edges, from ``inputs`` to ``outputs`` channels."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    frames: int = 0
    """0: two-dimensional. Else causal over so many frames: a picture is the first, with zeros before it."""

    def parameters(self) -> Shapes:
        frames = (self.frames,) if self.frames else ()
        yield f"{self.name}.weight", (self.outputs, self.inputs, *frames, self.kernel, self.kernel)
        yield f"{self.name}.bias", (self.outputs,)

    def convolutions(self) -> Iterator[Convolution]:
        yield self


@dataclass(frozen=True)
class Norm:
    """GroupNorm over ``groups`` of the whole map, or RMSNorm over each pixel's channels."""

    name: str
    channels: int
    groups: int | None
    """None: RMSNorm."""
    eps: float = 1e-6
    dims: int = 2
    """Of an RMSNorm's weight, behind the channels."""

    def parameters(self) -> Shapes:
        if self.groups is None:
            yield f"{self.name}.gamma", (self.channels, *(1,) * self.dims)
        else:
            yield f"{self.name}.weight", (self.channels,)
            yield f"{self.name}.bias", (self.channels,)


class _Layer:
    """What all layers can say of their parts."""

    def convolutions(self) -> Iterator[Convolution]:
        yield from ()

    def norms(self) -> Iterator[Norm]:
        yield from ()

    def parameters(self) -> Shapes:
        for norm in self.norms():
            yield from norm.parameters()
        for conv in self.convolutions():
            yield from conv.parameters()


@dataclass(frozen=True)
class Stem(_Layer):
    """The first convolutions of a half; the map after the last of them is stored."""

    convs: tuple[Convolution, ...]
    repeats: int = 0
    """0: nothing is added to it. Else its own input, each channel so many times, behind a single one."""

    def convolutions(self) -> Iterator[Convolution]:
        yield from self.convs


@dataclass(frozen=True)
class ResBlock(_Layer):
    """x (or its 1 x 1 ``shortcut``) + conv2(silu(norm2(conv1(silu(norm1(x))))))."""

    norm1: Norm
    conv1: Convolution
    norm2: Norm
    conv2: Convolution
    shortcut: Convolution | None

    def norms(self) -> Iterator[Norm]:
        yield from (self.norm1, self.norm2)

    def convolutions(self) -> Iterator[Convolution]:
        yield from (self.conv1, self.conv2)
        if self.shortcut is not None:
            yield self.shortcut


@dataclass(frozen=True)
class Attention(_Layer):
    """x + out(attention(norm(x))) with one head over all pixels of the map."""

    norm: Norm
    query_key_value: tuple[str, ...]
    """Names of three projections, or of one that makes all three."""
    out: str
    channels: int
    dims: int = 0
    """Of the projections' weights behind (outputs, inputs): 2 for convolutions of 1 x 1."""

    def parameters(self) -> Shapes:
        yield from self.norm.parameters()
        each = 3 // len(self.query_key_value)
        for name, times in [*((name, each) for name in self.query_key_value), (self.out, 1)]:
            yield f"{name}.weight", (times * self.channels, self.channels, *(1,) * self.dims)
            yield f"{name}.bias", (times * self.channels,)


@dataclass(frozen=True)
class Upsample(_Layer):
    """Every pixel doubled in both directions, then ``conv``."""

    conv: Convolution

    def convolutions(self) -> Iterator[Convolution]:
        yield self.conv


@dataclass(frozen=True)
class Downsample(_Layer):
    """``conv`` with stride 2, and one row and column of zeros at the right and below."""

    conv: Convolution

    def convolutions(self) -> Iterator[Convolution]:
        yield self.conv


@dataclass(frozen=True)
class ShuffleUp(_Layer):
    """``conv``, plus x with every channel repeated; then four channels become the four pixels of one."""

    conv: Convolution

    def convolutions(self) -> Iterator[Convolution]:
        yield self.conv

    @property
    def outputs(self) -> int:
        return self.conv.outputs // 4

    @property
    def repeats(self) -> int:
        return self.conv.outputs // self.conv.inputs


@dataclass(frozen=True)
class ShuffleDown(_Layer):
    """Four pixels become four channels, of ``conv`` and of x; the latter's means are added to the former."""

    conv: Convolution

    def convolutions(self) -> Iterator[Convolution]:
        yield self.conv

    @property
    def outputs(self) -> int:
        return 4 * self.conv.outputs


@dataclass(frozen=True)
class Head(_Layer):
    """conv(silu(norm(x))), then the 1 x 1 ``after``; the result is read once and not stored."""

    norm: Norm
    conv: Convolution
    after: Convolution | None = None
    adds_means: bool = False
    """Whether means of neighbouring channels of x are added to what ``conv`` makes."""

    def norms(self) -> Iterator[Norm]:
        yield self.norm

    def convolutions(self) -> Iterator[Convolution]:
        yield self.conv
        if self.after is not None:
            yield self.after


@dataclass(frozen=True)
class Beside:
    """What a level adds to its result: its input at the result's sides, in ``outputs`` channels."""

    sides: Literal["doubled", "halved", "same"]
    outputs: int
    frames: int = 1
    """Of which a picture is the last, and the others are zeros or left out."""


@dataclass(frozen=True)
class Level(_Layer):
    """``layers`` one after the other, and ``beside`` them their input."""

    layers: tuple[Layer, ...]
    beside: Beside

    def parameters(self) -> Shapes:
        for layer in self.layers:
            yield from layer.parameters()


Layer: TypeAlias = (
    Stem | ResBlock | Attention | Upsample | Downsample | ShuffleUp | ShuffleDown | Level | Head
)
