"""Convolutions of bands of a map: 3 x 3 across every edge, up and down by two, exact as on the whole map."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.vae.layers import Beside
from imax_dist.vae.rows import RowMap


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    stride: int = 1,
) -> Tensor:
    """A convolution of (rows, width, channels); ``pad`` zeros (left, right, top, bottom)."""
    picture = x.unsqueeze(0).permute(0, 3, 1, 2)  # with strides that torch knows as channels last
    left, right, top, bottom = pad
    if left == right and top == bottom:
        result = F.conv2d(picture, weight, bias, padding=(top, left), stride=stride)
    elif left == right:
        result = F.conv2d(F.pad(picture, (0, 0, top, bottom)), weight, bias, padding=(0, left), stride=stride)
    else:
        result = F.conv2d(F.pad(picture, pad), weight, bias, stride=stride)
    return result.permute(0, 2, 3, 1).squeeze(0).contiguous()


def window3(rows: RowMap, top: int, bottom: int) -> tuple[Tensor, tuple[int, int]]:
    """What a 3 x 3 convolution needs for rows [top, bottom), and the zero rows above and below it."""
    height = rows.share.height
    first, last = max(top - 1, 0), min(bottom + 1, height)
    return rows.read(first, last), (first - (top - 1), bottom + 1 - last)


def upsampled3(rows: RowMap, weight: Tensor, bias: Tensor | None, *, top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of: every pixel doubled in both directions, then a 3 x 3 convolution.

    Doubled pixels stand under two taps at once, so that each of the four places of an output pixel is a 2 x 2
    convolution of the source whose taps are sums of the nine: the same numbers with 4/9 of the work.
    """
    start, end = top // 2, (bottom + 1) // 2
    source, (over, under) = window3(rows, start, end)
    padded = F.pad(source, (0, 0, 1, 1, over, under))
    count, width = end - start, source.shape[1]
    result = source.new_empty((count, 2, width, 2, weight.shape[0]))
    for row in (0, 1):
        for column in (0, 1):
            taps = _joined(_joined(weight, 2, row), 3, column)
            part = padded[row : row + count + 1, column : column + width + 1]
            result[:, row, :, column] = convolved(part, taps, bias)
    doubled = result.reshape(2 * count, 2 * width, -1)
    return doubled[top - 2 * start : bottom - 2 * start]


def _joined(weight: Tensor, dim: int, place: int) -> Tensor:
    """Three taps as two: the last two fall on one pixel at a pair's first place, else the first two."""
    first, second, third = weight.to(torch.promote_types(weight.dtype, torch.float32)).unbind(dim)
    pair = (first, second + third) if place == 0 else (first + second, third)
    return torch.stack(pair, dim).to(weight.dtype)


def downsampled3(rows: RowMap, weight: Tensor, bias: Tensor | None, *, top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of a 3 x 3 convolution of stride 2, one zero at the right and below only."""
    last = min(2 * bottom + 1, rows.share.height)
    return convolved(rows.read(2 * top, last), weight, bias, pad=(0, 1, 0, 2 * bottom + 1 - last), stride=2)


def shuffled_up3(
    rows: RowMap, weight: Tensor, bias: Tensor | None, *, repeats: int, top: int, bottom: int
) -> Tensor:
    """Rows [top, bottom) of: a 3 x 3 convolution plus x repeated, four channels made the pixels of one."""
    start, end = top // 2, (bottom + 1) // 2
    source, (over, under) = window3(rows, start, end)
    made = convolved(source, weight, bias, pad=(1, 1, over, under))
    made += rows.read(start, end).repeat_interleave(repeats, dim=-1)
    count, width, channels = made.shape
    pixels = made.reshape(count, width, 2, 2, channels // 4).transpose(1, 2)
    doubled = pixels.reshape(2 * count, 2 * width, channels // 4)
    return doubled[top - 2 * start : bottom - 2 * start].contiguous()


def shuffled_down3(rows: RowMap, weight: Tensor, bias: Tensor | None, *, top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of: a 3 x 3 convolution, four pixels made channels, plus means of those of x."""
    source, (over, under) = window3(rows, 2 * top, 2 * bottom)
    made = _gathered_pixels(convolved(source, weight, bias, pad=(1, 1, over, under)))
    return made + channel_means(_gathered_pixels(rows.read(2 * top, 2 * bottom)), made.shape[-1])


def _gathered_pixels(x: Tensor) -> Tensor:
    """(2 h, 2 w, C) -> (h, w, 4 C)."""
    height, width, channels = x.shape
    pixels = x.reshape(height // 2, 2, width // 2, 2, channels).transpose(1, 2)
    return pixels.reshape(height // 2, width // 2, 4 * channels)


def channel_means(x: Tensor, channels: int) -> Tensor:
    """``channels`` means of neighbouring channels of (rows, width, C)."""
    means: Tensor = x.unflatten(-1, (channels, -1)).mean(dim=-1)
    return means


def means_beside(rows: RowMap, kind: Beside, *, top: int, bottom: int) -> Tensor:
    """Rows [top, bottom) of what a level of the same sides adds to its result, made of its input."""
    return channel_means(rows.read(top, bottom), kind.outputs)


def halved_beside(rows: RowMap, kind: Beside, *, top: int, bottom: int) -> Tensor:
    """Of a level that halves the sides: means over four pixels, and frames of which the last is given."""
    source = rows.read(2 * top, 2 * bottom)
    pixels = source.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).permute(0, 2, 4, 1, 3).unsqueeze(3)
    pixels = F.pad(pixels, (0, 0, 0, 0, kind.frames - 1, 0))
    return channel_means(pixels.flatten(2), kind.outputs)


def doubled_beside(rows: RowMap, kind: Beside, *, top: int, bottom: int) -> Tensor:
    """Of a level that doubles the sides: channels repeated, shuffled into pixels, of frames the last."""
    start, end = top // 2, (bottom + 1) // 2
    source = rows.read(start, end)
    repeats = 4 * kind.frames * kind.outputs // source.shape[2]
    parts = source.repeat_interleave(repeats, dim=2).unflatten(2, (kind.outputs, kind.frames, 2, 2))
    doubled: Tensor = parts[:, :, :, -1].permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return doubled[top - 2 * start : bottom - 2 * start]


BESIDE: dict[str, Callable[..., Tensor]] = {
    "same": means_beside,
    "halved": halved_beside,
    "doubled": doubled_beside,
}
"""By the sides of a level's result."""
