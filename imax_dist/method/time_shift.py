"""Time shift: spend more of the steps at high noise when there are more tokens. Sec. 2.3, item 2.

The list of sigmas is made here, in float64, and passed to the sampler: diffusers' schedulers silently
ignore a changed ``config.shift`` (DECISIONS 4).
"""

from __future__ import annotations


def shifted_sigma(sigma: float, shift: float) -> float:
    """sigma' = s sigma / (1 + (s - 1) sigma); the paper's t' = t / (s - s t + t) with t = 1 - sigma.

    Written so that 0 and 1 stay exactly where they are.
    """
    return shift * sigma / (shift * sigma + (1.0 - sigma))


def shifted_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """``steps`` + 1 noise levels from 1 down to 0, evenly spaced before the shift.

    Raises ValueError unless steps >= 1 and shift > 0.
    """
    if steps < 1 or not shift > 0.0:
        raise ValueError(f"time shift needs steps >= 1 and shift > 0, got {steps} and {shift}")
    return tuple(shifted_sigma(1.0 - index / steps, shift) for index in range(steps + 1))


def sigmas_from(start: float, steps: int, shift: float) -> tuple[float, ...]:
    """``steps`` + 1 noise levels from ``start`` down to 0, evenly spaced before the shift.

    ``shifted_sigmas`` is the case of start 1. Raises ValueError unless steps >= 1, shift > 0 and start is in
    (0, 1].
    """
    if not 0.0 < start <= 1.0:
        raise ValueError(f"a pass starts at a sigma in (0, 1], got {start}")
    before = start / (start + shift * (1.0 - start))
    levels = shifted_sigmas(steps, shift)
    below = (shifted_sigma(before * (1.0 - index / steps), shift) for index in range(1, steps + 1))
    return levels if start == 1.0 else (start, *below)
