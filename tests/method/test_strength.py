"""Strength means the same share of the picture at every scale and on every network."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from imax_dist.method.strength import kept_share, resemblance_cutoff, start_level, strength_sigmas

SCALES = (1.0, 1.3, 2.0, 4.0, 8.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("strength", [0.05, 0.2, 0.5, 0.95])
def test_the_same_strength_keeps_the_same_share_of_the_picture(strength: float, scale: float) -> None:
    assert kept_share(start_level(strength, scale), scale) == pytest.approx(1 - strength, abs=1e-12)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_noise_in_the_pictures_own_band_is_the_same_at_every_scale(scale: int) -> None:
    """Measured: noise against image after the mean over what was one pixel of the picture."""
    generator = torch.Generator().manual_seed(0)
    sigma = start_level(0.3, float(scale))
    noise = torch.randn(1, 1, 64 * scale, 64 * scale, generator=generator, dtype=torch.float64)
    own = torch.nn.functional.avg_pool2d(sigma * noise, scale)
    assert float(own.std()) / (1 - sigma) == pytest.approx(0.3 / 0.7, rel=0.05)


@pytest.mark.parametrize("scale", SCALES)
def test_the_ends_are_the_picture_and_pure_noise_and_levels_rise_between(scale: float) -> None:
    levels = [start_level(step / 20, scale) for step in range(21)]
    assert (levels[0], levels[-1]) == (0.0, 1.0)
    assert all(below < above for below, above in itertools.pairwise(levels))


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_a_strength_outside_0_to_1_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\]"):
        start_level(strength, 2.0)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0, 24.0])
@pytest.mark.parametrize("strength", [0.01, 0.2, 0.7, 1.0])
def test_at_least_the_fewest_steps_run_below_the_start(strength: float, shift: float) -> None:
    start = start_level(strength, 2.0)
    sigmas = strength_sigmas(start, 30, shift, fewest=4)
    assert sigmas[0] == start
    assert sigmas[-1] == 0.0
    assert 4 <= len(sigmas) - 1 <= 30
    assert all(above > below for above, below in itertools.pairwise(sigmas))


def test_a_pass_without_strength_has_no_step_and_a_full_one_the_whole_schedule() -> None:
    assert strength_sigmas(0.0, 30, 3.0, fewest=4) == (0.0,)
    assert len(strength_sigmas(1.0, 30, 3.0, fewest=4)) == 31


def test_less_resemblance_holds_a_narrower_band() -> None:
    assert [resemblance_cutoff(r) for r in (1.0, 0.5, 0.0)] == [1.0, 0.5, 0.125]
