"""The building blocks of diffusers' AutoencoderKL as maps of rows; nothing is set on the modules.

Each function takes a map and gives the map after one module. A block of several convolutions computes
its inner map again where memory has no room for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from imax_dist.vae.attention import Projections, frame_attention
from imax_dist.vae.moments import Moments, group_norm_affine
from imax_dist.vae.rows import (
    LazyRows,
    Rows,
    StoredRows,
    convolved,
    downsampled3,
    keep,
    settle,
    upsampled3,
    window3,
)
from imax_dist.vae.store import Scratch, row_bytes

Change = Callable[[Tensor], Tensor]


def unchanged(x: Tensor) -> Tensor:
    """For a convolution that has nothing before it."""
    return x


def normalised(rows: Rows, norm: nn.GroupNorm, activation: nn.Module | None) -> Change:
    """GroupNorm with the statistics of the whole map, then the activation, for any band of it."""
    assert rows.moments is not None
    scale, shift = group_norm_affine(
        rows.moments, groups=norm.num_groups, eps=norm.eps, weight=norm.weight, bias=norm.bias
    )
    precision = torch.promote_types(rows.like.dtype, torch.float32)
    scale, shift = scale.to(precision), shift.to(precision)

    def change(x: Tensor) -> Tensor:
        y = x.to(precision, copy=True).mul_(scale).add_(shift).to(x.dtype)
        if activation is None:
            return y
        return F.silu(y, inplace=True) if isinstance(activation, nn.SiLU) else activation(y)

    return change


def convolution(rows: Rows, conv: nn.Conv2d, before: Change = unchanged, *, last: bool) -> LazyRows:
    """A 3 x 3 or 1 x 1 convolution of ``before(rows)``. ``last``: nothing else will read ``rows``."""
    weight, bias = conv.weight, conv.bias

    def make(top: int, bottom: int) -> Tensor:
        if weight.shape[2] == 1:
            return convolved(before(rows.read(top, bottom)), weight, bias)
        window, (over, under) = window3(rows, top, bottom)
        return convolved(before(window), weight, bias, pad=(1, 1, over, under))

    like = rows.like.new_empty((0, rows.like.shape[1], weight.shape[0]))
    forgets = (lambda row: rows.forget(row - 1)) if last else None
    closes, widest = (rows,) if last else (), row_bytes(rows.like)
    return LazyRows(rows.share, like, make, forgets=forgets, closes=closes, widest=widest)


def resnet(rows: Rows, block: Any, scratch: Scratch) -> StoredRows:
    """ResnetBlock2D without a time embedding; ``rows`` is used up."""
    first = convolution(rows, block.conv1, normalised(rows, block.norm1, block.nonlinearity), last=False)
    hidden = settle(first, scratch, reserve=rows.share.most * row_bytes(first.like))
    inner = convolution(hidden, block.conv2, normalised(hidden, block.norm2, block.nonlinearity), last=False)
    shortcut = block.conv_shortcut

    def make(top: int, bottom: int) -> Tensor:
        x = rows.read(top, bottom)
        x = x if shortcut is None else convolved(x, shortcut.weight, shortcut.bias)
        y = inner.read(top, bottom).add_(x)
        return y if block.output_scale_factor == 1 else y.div_(block.output_scale_factor)

    def forgets(row: int) -> None:
        hidden.forget(row - 1)
        rows.forget(row - 2)

    widest = max(row_bytes(rows.like), row_bytes(hidden.like))
    whole = LazyRows(rows.share, inner.like, make, forgets=forgets, closes=(hidden, rows), widest=widest)
    return keep(whole, scratch)


def upsampled(rows: Rows, conv: nn.Conv2d, scratch: Scratch) -> Rows:
    """Upsample2D; ``rows`` is used up. Stored only if memory has room for it and the block after it."""
    share, (_, width, channels) = rows.share.doubled(), rows.like.shape

    def make(top: int, bottom: int) -> Tensor:
        return upsampled3(rows, conv.weight, conv.bias, top=top, bottom=bottom)

    like = rows.like.new_empty((0, 2 * width, channels))
    doubled = LazyRows(share, like, make, forgets=lambda row: rows.forget(row // 2 - 2), closes=(rows,))
    return settle(doubled, scratch, reserve=2 * share.most * row_bytes(like))


def downsampled(rows: Rows, conv: nn.Conv2d, scratch: Scratch) -> StoredRows:
    """Downsample2D of the encoder (one zero at the right and below); ``rows`` is used up."""

    def make(top: int, bottom: int) -> Tensor:
        return downsampled3(rows, conv.weight, conv.bias, top=top, bottom=bottom)

    like = rows.like.new_empty((0, rows.like.shape[1] // 2, conv.out_channels))
    halved = LazyRows(
        rows.share.halved(),
        like,
        make,
        forgets=lambda row: rows.forget(2 * row),
        closes=(rows,),
        widest=2 * row_bytes(rows.like),  # two of its rows make one
    )
    return keep(halved, scratch)


def attention(rows: Rows, block: Any, scratch: Scratch) -> StoredRows:
    """The mid block's attention over the whole frame; ``rows`` is used up."""
    share, (_, width, channels) = rows.share, rows.like.shape
    norm = normalised(rows, block.group_norm, None)

    def heads(top: int, bottom: int, *layers: nn.Linear) -> list[Tensor]:
        tokens = norm(rows.read(top, bottom)).reshape(1, -1, channels)
        return [layer(tokens).unflatten(-1, (block.heads, -1)) for layer in layers]

    projections = Projections(
        query=lambda top, bottom: heads(top, bottom, block.to_q)[0],
        key_value=lambda top, bottom: tuple(heads(top, bottom, block.to_k, block.to_v)),  # type: ignore[arg-type,return-value]
    )
    store = scratch.open(like=rows.like, rows=share.bottom - share.top, most=share.most)
    moments = Moments.none(channels, rows.like.device)
    for top, bottom, attended in frame_attention(projections, share, width=width, channels=channels):
        out = block.to_out[0](attended.flatten(2)).reshape(-1, width, channels)
        out = (out + rows.read(top, bottom)) / block.rescale_output_factor
        store.append(out)
        moments = moments.merged(Moments.of(out))
        scratch.computed(out)
    rows.close()
    return StoredRows(share, store, moments)
