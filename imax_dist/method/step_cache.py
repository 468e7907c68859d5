"""Step caching: some steps skip the network and use its last velocity again.

Not in the paper. Which steps is decided from their number alone, before the first: the same list on every
rank and after every restart, so that no rank calls the network while another waits. What is kept is the
network's own velocity, before guidance: projected flow acts at every step, on its own latents (DECISIONS 55).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

SkipRule: TypeAlias = Callable[[int], frozenset[int]]
"""From the number of steps to the indices of those that skip the network."""


def nothing(steps: int) -> frozenset[int]:
    """The network is asked at every step."""
    del steps
    return frozenset()


def skipping(*, run: int, of: int, first: int, last: int) -> SkipRule:
    """The last ``run`` of every ``of`` steps, but none of a pass's ``first`` (1 or more) and ``last``."""

    def skipped(steps: int) -> frozenset[int]:
        return frozenset(index for index in range(first, steps - last) if (index - first) % of >= of - run)

    return skipped


STEP_CACHES: dict[str, SkipRule] = {
    "none": nothing,
    "light": skipping(run=1, of=3, first=4, last=2),
    "strong": skipping(run=2, of=4, first=2, last=2),
}
"""Of 24 steps ``light`` skips 6 and ``strong`` 10. Those computed stand on the plain and on the shifted grid:
with every second step skipped one of the two grids would be left out."""


def fewest_steps(rule: SkipRule) -> int:
    """The fewest steps of which ``rule`` skips any."""
    return next(steps for steps in range(1, 1000) if rule(steps))
