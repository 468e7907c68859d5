"""The frequency rules by name."""

from __future__ import annotations

from imax_dist.method.baselines.time_aware_rope import time_aware
from imax_dist.method.rope import FrequencyRule, interpolated, ntk, ntk_fixed, unchanged
from imax_dist.method.rope_by_parts import dype, dype_ntk, yarn

FREQUENCY_RULES: dict[str, FrequencyRule] = {
    "none": unchanged,
    "interpolation": interpolated,
    "ntk": ntk,
    "ntk_fixed": ntk_fixed,
    "yarn": yarn,
    "dype": dype,
    "dype_ntk": dype_ntk,
    "time_aware": time_aware,
}
RULES_OF_TIME = {"dype", "dype_ntk", "time_aware"}
"""Those whose frequencies depend on sigma: their tables cannot be made once for all steps."""
