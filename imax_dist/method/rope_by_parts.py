"""RoPE by parts: fast frequencies stay, slow ones are interpolated, those between are NTK-scaled.

YaRN (arXiv 2309.00071) tells parts apart by how many turns a frequency makes over the training length, here
in tokens along a side (64 for FLUX.1). DyPE (arXiv 2510.20766, its formula of February 2026) multiplies the
thresholds by sigma^2, so that ever more frequencies stay as trained while the image comes out of the noise.
YaRN's temperature on the logits is not here: it is a choice of proportional_attention.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from imax_dist.method.rope import Frequencies, RopeContext, base_frequencies

INTERPOLATED = (1.25, 0.75)
"""Turns between which NTK gives way to interpolation."""
KEPT = (16.0, 2.0)
"""Turns between which a trained frequency gives way to NTK."""
DYPE_EXPONENT = 2.0


def yarn(dim: int, context: RopeContext) -> Frequencies:
    """YaRN by parts with the two ramps of the image models that use it (DyPE's and UltraFlux's code)."""
    return _by_parts(dim, context, share=1.0)


def dype(dim: int, context: RopeContext) -> Frequencies:
    """DyPE on YaRN: every threshold times sigma^2. DECISIONS 39."""
    return _by_parts(dim, context, share=context.sigma**DYPE_EXPONENT)


def dype_ntk(dim: int, context: RopeContext) -> Frequencies:
    """DyPE on NTK: omega_k / s^(2 sigma^2 2k / (dim - 2)), as trained at the image."""
    power = 2.0 * context.sigma**DYPE_EXPONENT
    return base_frequencies(dim, context.theta * _ntk_base_factor(dim, context) ** power)


def turns_index(turns: float, dim: int, context: RopeContext) -> float:
    """The (fractional) index of the frequency that makes ``turns`` turns over the training length."""
    return dim * math.log(context.tokens / (2.0 * math.pi * turns)) / (2.0 * math.log(context.theta))


def _by_parts(dim: int, context: RopeContext, *, share: float) -> Frequencies:
    kept = base_frequencies(dim, context.theta)
    scaled = base_frequencies(dim, context.theta * _ntk_base_factor(dim, context))
    slow = kept / max(context.scale, 1.0)
    scaled = torch.lerp(scaled, slow, _ramp(INTERPOLATED, dim, context, share=share))
    return torch.lerp(kept, scaled, _ramp(KEPT, dim, context, share=share))


def _ramp(turns: tuple[float, float], dim: int, context: RopeContext, *, share: float) -> Tensor:
    """0 for frequencies of at least ``turns[0]`` x ``share`` turns, 1 at ``turns[1]`` x ``share`` and below.

    The ends are whole indices, outwards, and stay within the frequencies there are: without that, thresholds
    close to 0 would turn the ramp round.
    """
    half = dim // 2
    first, last = (turns_index(count * share, dim, context) for count in turns)
    start = min(max(math.floor(first), 0), half)
    end = min(max(math.ceil(last), 0), half)
    width = end - start if end > start else 1e-3
    return ((torch.arange(half, dtype=torch.float64) - start) / width).clamp(0.0, 1.0)


def _ntk_base_factor(dim: int, context: RopeContext) -> float:
    """s^(dim / (dim - 2)): the slowest frequency is then exactly interpolated."""
    return float(max(context.scale, 1.0) ** (dim / max(dim - 2, 1)))
