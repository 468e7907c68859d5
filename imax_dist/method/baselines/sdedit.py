"""SDEdit (arXiv 2108.01073): noise the enlarged native image to a chosen level and denoise from there.

The same start serves as HiFlow's initialisation (arXiv 2504.06232): there the image noised is the native
pass's endpoint at that level, not the finished image.
"""

from __future__ import annotations


def remaining_sigmas(sigmas: tuple[float, ...], start: float) -> tuple[float, ...]:
    """The part of a schedule that runs: ``start`` itself, then every level of ``sigmas`` below it.

    The first step is as long as the distance to the next level; no level is moved. Start 1 is the whole
    schedule. Raises ValueError unless ``start`` is in (0, 1].
    """
    if not 0.0 < start <= 1.0:
        raise ValueError(f"a pass starts at a sigma in (0, 1], got {start}")
    return (start, *(sigma for sigma in sigmas if sigma < start))
