"""Time-aware scaled RoPE (Lumina-Next, arXiv 2406.18583): position interpolation early, NTK late."""

from __future__ import annotations

from imax_dist.method.rope import Frequencies, RopeContext, interpolated, ntk


def time_aware(dim: int, context: RopeContext) -> Frequencies:
    """Frequencies over s while t = 1 - sigma is below the watershed, then base k b s.

    The form of diffusers' Lumina pipeline, whose ``scaling_watershed`` it is; Lumina-Next has k = 1.
    """
    early = 1.0 - context.sigma < context.watershed
    return interpolated(dim, context) if early else ntk(dim, context)
