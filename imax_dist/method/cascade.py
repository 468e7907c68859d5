"""A cascade: reach the target in several passes, each guided by the one before."""

from __future__ import annotations

import math
from typing import Literal

CascadeRule = Literal["none", "doubling"] | tuple[float, ...]


def cascade_scales(rule: CascadeRule, scale: float) -> tuple[float, ...]:
    """The linear scales (native = 1) of the passes before the one to ``scale``.

    doubling: 2, 4, 8 ..., as long as at least a factor of sqrt(2) is left for the last pass, so that no
    pass enlarges by less than that or by more than 2 sqrt(2). A list: those of it below ``scale``.
    """
    if rule == "none":
        return ()
    if rule == "doubling":
        most = math.floor(math.log2(max(scale, 1.0)) - 0.5 + 1e-9)
        return tuple(2.0**power for power in range(1, most + 1))
    return tuple(own for own in rule if own < scale)
