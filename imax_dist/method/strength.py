"""Strength: one number from 0 to 1 for how far a pass may leave the picture before it.

What is kept of a picture under noise is decided in its own band: enlarged s times along each side, each of
its pixels is s^2 new ones, whose noise averages to 1/s. So the same share of it is kept at every scale if
sigma / (1 - sigma), noise against image, grows with s: the time shift's own formula, by s instead of by the
model's factor. The start level then does not depend on the network's time shift.
"""

from __future__ import annotations

import math

from imax_dist.method.time_shift import shifted_sigma, sigmas_from

LEAST_ENLARGEMENT = 2.0
"""Of the low-pass where a pass starts by strength: at the picture's own size something is left to change."""
LEAST_CUTOFF = 0.125


def start_level(strength: float, enlargement: float) -> float:
    """The sigma a pass starts at that makes its picture ``enlargement`` times larger along each side.

    0 is the picture itself, 1 pure noise. Raises ValueError unless ``strength`` is in [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be in [0, 1], got {strength}")
    return shifted_sigma(strength, enlargement)


def kept_share(start: float, enlargement: float) -> float:
    """The share of the picture, of its own band, in what a pass starts from at ``start``; the rest is noise.

    By the inverse of ``start_level``: 1 - strength.
    """
    return 1.0 - shifted_sigma(start, 1.0 / enlargement)


def strength_sigmas(start: float, steps: int, shift: float, *, fewest: int) -> tuple[float, ...]:
    """The noise levels from ``start`` to 0, evenly spaced before the time ``shift``.

    As many as a whole pass of ``steps`` has below ``start``, at least ``fewest``, and an even number, so
    that both grids of the patch shift have as many; none at 0.
    """
    if start == 0.0:
        return (0.0,)
    count = max(fewest, math.ceil(steps * shifted_sigma(start, 1.0 / shift) - 1e-9))
    return sigmas_from(start, count + count % 2, shift)


def resemblance_cutoff(resemblance: float) -> float:
    """Where the low-pass cuts for a ``resemblance`` in [0, 1]: a fraction of the picture's own Nyquist."""
    return max(resemblance, LEAST_CUTOFF)
