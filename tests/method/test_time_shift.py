"""The list of sigmas against the paper's formula and diffusers' own scheduler."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from imax_dist.method.time_shift import shifted_sigma, shifted_sigmas, sigmas_from


@pytest.mark.parametrize(("shift", "middle"), [(3.0, 0.75), (6.0, 6 / 7), (1.0, 0.5)])
def test_half_way_of_thirty_steps_is_the_known_number(shift: float, middle: float) -> None:
    assert shifted_sigmas(30, shift)[15] == pytest.approx(middle, abs=1e-14)


@pytest.mark.parametrize("shift", [1.0, 1.6, 3.0, 6.0, 10.0])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_sigmas_equal_those_of_diffusers_set_shift(steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
    np.testing.assert_allclose(shifted_sigmas(steps, shift), scheduler.sigmas.numpy(), atol=2e-7)


@pytest.mark.parametrize("shift", [0.5, 1.5, 6.0])
def test_shift_is_the_papers_formula_with_t_one_minus_sigma(shift: float) -> None:
    for t in np.linspace(0.0, 1.0, 11):
        paper = t / (shift - shift * t + t)
        assert 1.0 - shifted_sigma(1.0 - t, shift) == pytest.approx(paper, abs=1e-14)


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 50.0])
def test_sigmas_fall_strictly_from_exactly_one_to_exactly_zero(shift: float) -> None:
    sigmas = shifted_sigmas(30, shift)
    assert len(sigmas) == 31
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert all(above > below for above, below in pairwise(sigmas))


def test_two_shifts_in_a_row_are_their_product() -> None:
    twice = shifted_sigma(shifted_sigma(0.37, 1.5), 4.0)
    assert twice == pytest.approx(shifted_sigma(0.37, 6.0), abs=1e-14)


def test_shift_one_changes_nothing() -> None:
    assert shifted_sigmas(4, 1.0) == (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize(("steps", "shift"), [(0, 3.0), (-2, 3.0), (30, 0.0), (30, -1.0), (30, float("nan"))])
def test_sigmas_refuse_no_steps_and_shifts_not_above_zero(steps: int, shift: float) -> None:
    with pytest.raises(ValueError, match=r"needs steps >= 1 and shift > 0, got"):
        shifted_sigmas(steps, shift)


@pytest.mark.parametrize(("start", "shift"), [(1.0, 3.0), (0.6, 6.0), (0.6, 1.0), (0.05, 12.0)])
def test_a_late_start_takes_exactly_its_steps_in_even_parts_of_the_unshifted_time(
    start: float, shift: float
) -> None:
    sigmas = sigmas_from(start, 5, shift)
    assert len(sigmas) == 6
    assert sigmas[0] == start
    assert sigmas[-1] == 0.0
    unshifted = [sigma / (shift - (shift - 1.0) * sigma) for sigma in sigmas]
    lengths = [above - below for above, below in pairwise(unshifted)]
    assert lengths == pytest.approx([unshifted[0] / 5] * 5, abs=1e-14)


def test_a_start_at_pure_noise_is_the_whole_schedule() -> None:
    assert sigmas_from(1.0, 30, 6.0) == shifted_sigmas(30, 6.0)


@pytest.mark.parametrize("start", [0.0, -0.1, 1.1, float("nan")])
def test_a_start_outside_the_noise_levels_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match=r"starts at a sigma in \(0, 1\]"):
        sigmas_from(start, 4, 3.0)
