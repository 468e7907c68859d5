"""The list of skipped steps: from their number alone, never the first, never the last."""

from __future__ import annotations

import pytest

from imax_dist.method.patch_shift import is_shifted
from imax_dist.method.step_cache import STEP_CACHES, fewest_steps

TIERS = [name for name in STEP_CACHES if name != "none"]


def test_of_24_steps_light_skips_6_and_strong_10() -> None:
    assert sorted(STEP_CACHES["light"](24)) == [6, 9, 12, 15, 18, 21]
    assert sorted(STEP_CACHES["strong"](24)) == [4, 5, 8, 9, 12, 13, 16, 17, 20, 21]
    assert STEP_CACHES["none"](24) == frozenset()


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 12, 24, 30, 50])
def test_both_ends_of_a_pass_and_both_grids_are_computed(tier: str, steps: int) -> None:
    skipped = STEP_CACHES[tier](steps)
    assert bool(skipped) == (steps >= fewest_steps(STEP_CACHES[tier]))
    assert not skipped & {0, 1, steps - 2, steps - 1}
    asked = [index for index in range(steps) if index not in skipped]
    if steps >= 12:
        shifted = sum(map(is_shifted, asked)) / len(asked)
        assert 0.4 <= shifted <= 0.6
