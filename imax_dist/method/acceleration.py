"""HiFlow's acceleration term (arXiv 2504.06232): from step to step the velocity changes as the reference's.

    v~_i = v_i + beta (v~_(i-1) + vref_i - vref_(i-1) - v_i),   vref = (x - x0_ref(sigma)) / sigma

v_i is the velocity of step i after the direction term (projected flow on a reference per step), beta =
strength sigma / sigma of the pass's first step.
"""

from __future__ import annotations

from imax_dist.shapes import Latents


def accelerated_velocity(
    velocity: Latents, reference_velocity: Latents, carried: Latents, beta: float
) -> Latents:
    """``velocity`` after the term; ``carried`` is v~ - vref of the step before. All (B, C, H, W)."""
    return velocity + beta * (carried + reference_velocity - velocity)
