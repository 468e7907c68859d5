"""P of Eq. 7: linear low-pass filters that keep the size of the latents. Sec. 2.2.

A projection is made for one scale (how many times larger than native each axis is) and then maps
latents to latents. Every filter here is linear and leaves a constant unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import AxisScale
from imax_dist.shapes import Latents

Projection: TypeAlias = Callable[[Latents], Latents]
FrequencyResponse: TypeAlias = Callable[[Tensor], Tensor]
LEAST_MATCHED = 1.5
"""The least scale whose matched block is two pixels."""


def block_mean(rows: int, columns: int) -> Projection:
    """Mean over blocks of ``rows`` x ``columns`` latent pixels, repeated back to size.

    With rows = columns = 2^level this is the level's Haar low band with all details zeroed, the filter of the
    authors' code at level 1. A block cut by the border takes the mean of what is left. Raises ValueError for
    blocks below 1 x 1.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"block_mean needs blocks of at least 1 x 1, got {rows} x {columns}")

    def project(x: Latents) -> Latents:
        means = F.avg_pool2d(x, (rows, columns), ceil_mode=True, count_include_pad=False)
        repeated = means.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)
        return repeated[:, :, : x.shape[2], : x.shape[3]]

    return project


def gaussian(rows: float, columns: float) -> Projection:
    """Separable Gaussian blur; ``rows`` and ``columns`` are standard deviations in latent pixels.

    Cut at three standard deviations; the border is mirrored (repeated where the image is smaller).
    """

    @cache
    def kernels(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        return [_gaussian_kernel(deviation).to(device, dtype) for deviation in (rows, columns)]

    def project(x: Latents) -> Latents:
        vertical, horizontal = kernels(x.device, x.dtype)
        return _convolve(_convolve(x, vertical, dim=2), horizontal, dim=3)

    return project


def fft_ideal(rows: float, columns: float) -> Projection:
    """Keep the frequencies up to ``rows``, ``columns``, fractions of Nyquist on each axis."""
    return _fft_filter(rows, columns, lambda radius: (radius <= 1.0).to(radius.dtype))


def butterworth(rows: float, columns: float, *, order: int = 4) -> Projection:
    """1 / (1 + d^(2 order)), d the frequency over the cut-off; HiFlow's filter (order 4)."""
    return _fft_filter(rows, columns, lambda radius: 1.0 / (1.0 + radius ** (2 * order)))


def _gaussian_kernel(deviation: float) -> Tensor:
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / max(deviation, 1e-12)) ** 2)
    return weights / weights.sum()


def _convolve(x: Tensor, kernel: Tensor, *, dim: int) -> Tensor:
    """Convolve every channel with a 1-D ``kernel`` along ``dim`` (2 or 3), mirrored at the border."""
    radius, channels = len(kernel) // 2, x.shape[1]
    mode = "reflect" if x.shape[dim] > radius else "replicate"
    padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
    shape = (1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1)
    weight = kernel.reshape(shape).repeat(channels, 1, 1, 1)
    return F.conv2d(F.pad(x, padding, mode=mode), weight, groups=channels)


def _fft_filter(rows: float, columns: float, response: FrequencyResponse) -> Projection:
    def project(x: Latents) -> Latents:
        precision = torch.promote_types(x.dtype, torch.float32)
        spectrum = torch.fft.rfft2(x.to(precision))
        vertical = 2 * torch.fft.fftfreq(x.shape[2], device=x.device, dtype=precision) / rows
        horizontal = 2 * torch.fft.rfftfreq(x.shape[3], device=x.device, dtype=precision) / columns
        radius = torch.hypot(vertical[:, None], horizontal[None, :])
        filtered: Tensor = torch.fft.irfft2(spectrum * response(radius), s=x.shape[-2:])
        return filtered.to(x.dtype)

    return project


def with_detail_left(scale: AxisScale) -> AxisScale:
    """``scale`` with every axis that is enlarged at all enlarged by LEAST_MATCHED at least.

    A block of one pixel keeps every frequency: where low and full weights add up to 1, as those of
    ``cosine_shift``, each step then lands on the reference, and the network paints nothing.
    """

    def axis(own: float) -> float:
        return max(own, LEAST_MATCHED) if own > 1.0 else own

    return AxisScale(axis(scale.height), axis(scale.width))


def matched_block(scale: AxisScale) -> tuple[int, int]:
    """The block that holds one native latent pixel: the reference has nothing finer."""
    return max(1, round(scale.height)), max(1, round(scale.width))


def project_matched_blocks(scale: AxisScale) -> Projection:
    """Block mean over one native latent pixel on each axis: Haar level log2(s) when s = 2^level."""
    return block_mean(*matched_block(scale))


def haar_level(level: int) -> Callable[[AxisScale], Projection]:
    """The low band of Haar level ``level``, whatever the scale; the authors' code has level 1."""

    def project(scale: AxisScale) -> Projection:
        del scale
        return block_mean(2**level, 2**level)

    return project


def project_gaussian(scale: AxisScale) -> Projection:
    """Gaussian with a standard deviation of half a native latent pixel on each axis."""
    return gaussian(scale.height / 2, scale.width / 2)


def project_fft_ideal(scale: AxisScale) -> Projection:
    """Sharp cut at the native Nyquist frequency."""
    return fft_ideal(1 / scale.height, 1 / scale.width)


def project_butterworth(scale: AxisScale) -> Projection:
    """Butterworth of order 4 at the native Nyquist frequency."""
    return butterworth(1 / scale.height, 1 / scale.width)


PROJECTIONS: dict[str, Callable[[AxisScale], Projection]] = {
    "matched_blocks": project_matched_blocks,
    "haar_level_1": haar_level(1),
    "haar_level_2": haar_level(2),
    "haar_level_3": haar_level(3),
    "gaussian": project_gaussian,
    "fft_ideal": project_fft_ideal,
    "butterworth": project_butterworth,
}
