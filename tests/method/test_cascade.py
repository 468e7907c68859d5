"""Which scales a cascade passes on its way."""

from __future__ import annotations

import math

import pytest

from imax_dist.method.cascade import cascade_scales


@pytest.mark.parametrize(
    ("scale", "scales"),
    [
        (1.0, ()),
        (2.0, ()),
        (2.5, ()),
        (2 * math.sqrt(2), (2.0,)),
        (3.0, (2.0,)),
        (4.0, (2.0,)),
        (8.0, (2.0, 4.0)),
        (0.5, ()),
    ],
)
def test_doubling_leaves_the_last_pass_a_factor_between_root_two_and_twice_that(
    scale: float, scales: tuple[float, ...]
) -> None:
    assert cascade_scales("doubling", scale) == scales


def test_a_list_is_taken_as_far_as_it_lies_below_the_target() -> None:
    assert cascade_scales((1.5, 3.0), 2.0) == (1.5,)
    assert cascade_scales((1.5, 3.0), 3.0) == (1.5,)
    assert cascade_scales((1.5, 3.0), 4.0) == (1.5, 3.0)


def test_none_is_one_jump() -> None:
    assert cascade_scales("none", 8.0) == ()
