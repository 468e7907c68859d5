"""SDEdit's part of a schedule, DemoFusion's blend, Lumina-Next's positions: each against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from imax_dist.method.baselines.sdedit import remaining_sigmas
from imax_dist.method.baselines.skip_residual import skip_weight, with_skip_residual
from imax_dist.method.baselines.time_aware_rope import time_aware
from imax_dist.method.rope import RopeContext
from imax_dist.method.time_shift import shifted_sigmas


def test_sdedit_runs_the_levels_below_its_start_and_no_other() -> None:
    assert remaining_sigmas((1.0, 0.9, 0.6, 0.3, 0.0), 0.7) == (0.7, 0.6, 0.3, 0.0)


def test_a_start_on_a_level_of_the_schedule_does_not_run_it_twice() -> None:
    assert remaining_sigmas((1.0, 0.9, 0.6, 0.3, 0.0), 0.6) == (0.6, 0.3, 0.0)


def test_a_start_at_pure_noise_is_the_whole_schedule() -> None:
    sigmas = shifted_sigmas(30, 6.0)
    assert remaining_sigmas(sigmas, 1.0) == sigmas


def test_a_start_below_every_level_is_one_step() -> None:
    assert remaining_sigmas((1.0, 0.5, 0.0), 1e-3) == (1e-3, 0.0)


@pytest.mark.parametrize("start", [0.0, -0.1, 1.1, math.nan])
def test_a_start_outside_the_path_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match=r"starts at a sigma in \(0, 1\], got"):
        remaining_sigmas((1.0, 0.0), start)


@pytest.mark.parametrize("sigma", [1.0, 0.8, 0.5, 0.2, 0.0])
def test_skip_weight_is_demofusions_cosine_cubed(sigma: float) -> None:
    steps, remaining = 50.0, 50.0 * sigma
    expected = (0.5 * (1 + np.cos(np.pi * (steps - remaining) / steps))) ** 3
    assert skip_weight(sigma) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("sigma", [0.95, 0.5, 0.1])
def test_skip_residual_mixes_in_the_noised_reference(sigma: float) -> None:
    x, reference, noise = torch.randn(3, 1, 4, 6, 8, dtype=torch.float64)
    c = ((1 + np.cos(np.pi * (1 - sigma))) / 2) ** 3
    noised = (1 - sigma) * reference.numpy() + sigma * noise.numpy()
    expected = c * noised + (1 - c) * x.numpy()
    ours = with_skip_residual(x, reference, noise, sigma)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_skip_residual_begins_with_the_noise_and_ends_with_the_image() -> None:
    x, reference, noise = torch.randn(3, 1, 4, 6, 8, dtype=torch.float64)
    assert torch.equal(with_skip_residual(x, reference, noise, 1.0), noise)
    assert torch.equal(with_skip_residual(x, reference, noise, 0.0), x)


@pytest.mark.parametrize(
    ("sigma", "early"), [(1.0, True), (0.71, True), (0.7, False), (0.3, False), (0.01, False)]
)
def test_time_aware_rope_interpolates_before_the_watershed_and_scales_the_base_after_it(
    sigma: float, early: bool
) -> None:
    context = RopeContext(theta=1e4, scale=4.0, factor=1.0, sigma=sigma, watershed=0.3)
    powers = -2.0 * np.arange(28) / 56
    expected = np.power(1e4, powers) / 4.0 if early else np.power(4e4, powers)
    ours = time_aware(56, context)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("watershed", "sigma"), [(0.0, 1.0), (1.0, 1e-6)])
def test_the_ends_of_the_watershed_are_one_rule_throughout(watershed: float, sigma: float) -> None:
    """Watershed 0 is NTK from the first step on, 1 is interpolation to the last."""
    context = RopeContext(theta=1e4, scale=2.0, factor=1.0, sigma=sigma, watershed=watershed)
    base = torch.from_numpy(np.power(1e4, -2.0 * np.arange(8) / 16))
    ntk = torch.from_numpy(np.power(2e4, -2.0 * np.arange(8) / 16))
    expected = base / 2.0 if watershed else ntk
    torch.testing.assert_close(time_aware(16, context), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("late", [0.6, 0.5])
def test_time_aware_rope_is_diffusers_lumina_embedding(late: float) -> None:
    """Their linear_factor divides the positions, their ntk_factor multiplies the base."""
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    sigma = 1.0 - late
    context = RopeContext(theta=1e4, scale=3.0, factor=1.0, sigma=sigma, watershed=0.55)
    linear, ntk = (1.0, 3.0) if late > 0.55 else (3.0, 1.0)
    positions = np.arange(40)
    theirs = get_1d_rotary_pos_embed(
        16, positions, theta=1e4, linear_factor=linear, ntk_factor=ntk, freqs_dtype=torch.float64
    )
    angles = torch.outer(torch.from_numpy(positions).double(), time_aware(16, context))
    torch.testing.assert_close(torch.polar(torch.ones_like(angles), angles), theirs, rtol=0, atol=1e-12)
