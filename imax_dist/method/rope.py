"""Rotary position embedding beyond the training size. Sec. 2.3, item 1.

A frequency rule gives the angular frequencies of one axis; ``rope_table`` turns position ids into the
cosines and sines that an unmodified transformer multiplies its queries and keys with. Frequencies are
float64 throughout. Scales are those of the whole image, never of a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from imax_dist.shapes import PositionIds, RopeTable

Frequencies: TypeAlias = Tensor
"""Angular frequencies of one axis in radians per token, (axis_dim / 2,), float64."""


class RopeContext(NamedTuple):
    """What a rule may depend on: the trained base, the axis' scale, the model's factor k, sigma.

    ``tokens`` is the trained length of an axis, ``watershed`` the paper time at which time_aware changes.
    """

    theta: float
    scale: float
    factor: float
    sigma: float
    tokens: int = 64
    watershed: float = 0.3


FrequencyRule: TypeAlias = Callable[[int, RopeContext], Frequencies]


def base_frequencies(dim: int, theta: float) -> Frequencies:
    """theta^(-2k / dim), k = 0 ... dim/2 - 1: what the model was trained with."""
    return theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def unchanged(dim: int, context: RopeContext) -> Frequencies:
    """The trained frequencies at every size."""
    return base_frequencies(dim, context.theta)


def interpolated(dim: int, context: RopeContext) -> Frequencies:
    """Position interpolation: every frequency divided by the scale."""
    return base_frequencies(dim, context.theta) / max(context.scale, 1.0)


def ntk(dim: int, context: RopeContext) -> Frequencies:
    """NTK-aware: base b' = k b s, with k = 1 for Lumina-Next and 2.5 for FLUX.1."""
    return base_frequencies(dim, context.theta * context.factor * context.scale)


def ntk_fixed(dim: int, context: RopeContext) -> Frequencies:
    """The authors' code: base 10 b at every size, which is the paper's k b s at s = 4 for FLUX.1."""
    return base_frequencies(dim, context.theta * 4.0 * context.factor)


def floored(rule: FrequencyRule) -> FrequencyRule:
    """No frequency below plain interpolation: max(rule, base / s). The authors' code."""

    def frequencies(dim: int, context: RopeContext) -> Frequencies:
        return torch.maximum(rule(dim, context), interpolated(dim, context))

    return frequencies


def rope_table(ids: PositionIds, frequencies: Sequence[Frequencies]) -> RopeTable:
    """Cosines and sines for ``ids`` (tokens, axes); one set of frequencies an axis.

    Returns two float64 (tokens, head_dim) tensors in FLUX's layout: the axes one after the other, each
    frequency repeated for the pair it rotates. Raises ValueError if the counts of axes differ.
    """
    if ids.shape[1] != len(frequencies):
        raise ValueError(f"ids have {ids.shape[1]} axes, but {len(frequencies)} sets of frequencies")
    angles = torch.cat(
        [
            torch.outer(ids[:, axis].double(), axis_frequencies.to(ids.device))
            for axis, axis_frequencies in enumerate(frequencies)
        ],
        dim=1,
    ).repeat_interleave(2, dim=1)
    return RopeTable(cos=angles.cos(), sin=angles.sin())
