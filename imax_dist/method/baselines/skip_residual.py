"""Skip residual (DemoFusion, arXiv 2311.16973): before each step, mix in the noised native image.

x <- c x_native + (1 - c) x, x_native = (1 - sigma) reference + sigma noise, with the noise the pass began
with, the same at every step; c = ((1 + cos(pi (T - t) / T)) / 2)^3 in DemoFusion's time, t / T = sigma.
"""

from __future__ import annotations

import math

from imax_dist.method.flow import interpolate
from imax_dist.shapes import Latents

EXPONENT = 3.0


def skip_weight(sigma: float) -> float:
    """c: 1 at pure noise, 0 at the image."""
    return float((0.5 * (1.0 + math.cos(math.pi * (1.0 - sigma)))) ** EXPONENT)


def with_skip_residual(x: Latents, reference: Latents, noise: Latents, sigma: float) -> Latents:
    """``x`` with the share of the noised ``reference`` that its noise level asks for; all (B, C, H, W)."""
    share = skip_weight(sigma)
    return share * interpolate(reference, noise, sigma) + (1.0 - share) * x
