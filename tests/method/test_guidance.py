"""Projected flow against Eq. 7 written out in the paper's own time and velocity."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import pywt
import torch
from numpy.typing import NDArray

from imax_dist.geometry import AxisScale
from imax_dist.method.flow import endpoint
from imax_dist.method.guidance import (
    SCHEDULES,
    GuidanceWeights,
    Step,
    guided_velocity,
)
from imax_dist.method.projection import PROJECTIONS, block_mean

Array = NDArray[np.float64]

SIGMAS = (1.0, 0.8571, 0.5, 0.03)


def haar(x: Array) -> Array:
    low, (horizontal, _, _) = pywt.dwt2(x, "haar")
    nothing = np.zeros_like(horizontal)
    return np.asarray(pywt.idwt2((low, (nothing, nothing, nothing)), "haar"))


def three(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Velocity, x and reference, float64 (2, 4, 8, 12)."""
    drawn = torch.randn(3, 2, 4, 8, 12, generator=rng, dtype=torch.float64)
    return drawn[0], drawn[1], drawn[2]


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("alpha", [1.5, 1.0, 0.25])
def test_guided_velocity_is_equation_7_in_paper_time(
    rng: torch.Generator, sigma: float, alpha: float
) -> None:
    velocity, x, reference = three(rng)
    t, v = 1.0 - sigma, -velocity.numpy()
    target = haar((reference.numpy() - x.numpy()) / (1.0 - t))
    expected = -(v + alpha * (target - haar(v)))
    ours = guided_velocity(
        velocity, x, reference, sigma, project=block_mean(2, 2), weights=GuidanceWeights(low=alpha)
    )
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_equation_7_as_printed_holds_where_the_reference_is_already_low(
    rng: torch.Generator, sigma: float
) -> None:
    """The printed form does not filter the native result: the same if the filter leaves it."""
    velocity, x, reference = three(rng)
    low_reference = block_mean(2, 2)(reference)
    t, v = 1.0 - sigma, -velocity.numpy()
    printed = v + 0.7 * ((low_reference.numpy() - haar(x.numpy())) / (1.0 - t) - haar(v))
    ours = guided_velocity(
        velocity,
        x,
        low_reference,
        sigma,
        project=block_mean(2, 2),
        weights=GuidanceWeights(low=0.7),
    )
    torch.testing.assert_close(ours, torch.from_numpy(-printed), rtol=1e-12, atol=1e-11)


def guided_endpoint(
    x0: torch.Tensor,
    reference: torch.Tensor,
    *,
    project: Callable[[torch.Tensor], torch.Tensor],
    weights: GuidanceWeights,
) -> torch.Tensor:
    """The same operator on endpoints: x0 + low P(reference - x0) + full (reference - x0)."""
    difference = reference - x0
    guided = x0 + weights.low * project(difference)
    return guided + weights.full * difference if weights.full else guided


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", sorted(PROJECTIONS))
@pytest.mark.parametrize("weights", [GuidanceWeights(0.8), GuidanceWeights(0.4, 0.6)])
def test_endpoint_form_equals_velocity_form(
    rng: torch.Generator, sigma: float, name: str, weights: GuidanceWeights
) -> None:
    velocity, x, reference = three(rng)
    project = PROJECTIONS[name](AxisScale(2.0, 3.0))
    by_velocity = guided_velocity(velocity, x, reference, sigma, project=project, weights=weights)
    by_endpoint = guided_endpoint(endpoint(x, velocity, sigma), reference, project=project, weights=weights)
    torch.testing.assert_close(endpoint(x, by_velocity, sigma), by_endpoint, rtol=0, atol=1e-12)


def test_full_weight_on_the_low_band_gives_the_endpoint_the_references_low_band(
    rng: torch.Generator,
) -> None:
    velocity, x, reference = three(rng)
    project = block_mean(4, 4)
    guided = guided_velocity(velocity, x, reference, 0.6, project=project, weights=GuidanceWeights(low=1.0))
    heading, free = endpoint(x, guided, 0.6), endpoint(x, velocity, 0.6)
    torch.testing.assert_close(project(heading), project(reference), rtol=0, atol=1e-12)
    torch.testing.assert_close(heading - project(heading), free - project(free), rtol=0, atol=1e-12)


def test_full_weight_on_all_frequencies_heads_for_the_reference(rng: torch.Generator) -> None:
    velocity, x, reference = three(rng)
    guided = guided_velocity(
        velocity,
        x,
        reference,
        0.6,
        project=block_mean(2, 2),
        weights=GuidanceWeights(0.0, full=1.0),
    )
    torch.testing.assert_close(endpoint(x, guided, 0.6), reference, rtol=0, atol=1e-12)


def test_no_weight_leaves_the_velocity_as_it_is(rng: torch.Generator) -> None:
    velocity, x, reference = three(rng)
    weights = SCHEDULES["off"](Step(sigma=0.5, index=3, steps=10))
    guided = guided_velocity(velocity, x, reference, 0.5, project=block_mean(2, 2), weights=weights)
    assert not weights.active
    assert torch.equal(guided, velocity)


def test_guided_velocity_refuses_sigma_zero(rng: torch.Generator) -> None:
    velocity, x, reference = three(rng)
    with pytest.raises(ValueError, match=r"needs sigma in \(0, 1\], got 0.0"):
        guided_velocity(velocity, x, reference, 0.0, project=block_mean(2, 2), weights=GuidanceWeights(1.0))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("index", "steps"), [(0, 30), (15, 30), (29, 30), (1, 3)])
def test_cosine_shift_is_the_formula_of_the_authors_default(
    rng: torch.Generator, sigma: float, index: int, steps: int
) -> None:
    """u + c (G - u) + (1 - c) (P(G) - P(u)), c = (1 + cos(pi i / N)) / 2."""
    velocity, x, reference = three(rng)
    u, share = velocity.numpy(), (1 + np.cos(np.pi * index / steps)) / 2
    target = (x.numpy() - reference.numpy()) / sigma
    expected = u + share * (target - u) + (1 - share) * (haar(target) - haar(u))
    weights = SCHEDULES["cosine_shift"](Step(sigma, index, steps))
    ours = guided_velocity(velocity, x, reference, sigma, project=block_mean(2, 2), weights=weights)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("sigma", "alpha"),
    [(1.0, 1.5), (0.5, 1.0), (0.0, 0.5), (0.75, 1.0 + 0.5 * math.sqrt(0.5))],
)
def test_paper_schedule_falls_from_one_and_a_half_to_one_half(sigma: float, alpha: float) -> None:
    weights = SCHEDULES["paper"](Step(sigma, index=99, steps=100))
    assert weights.low == pytest.approx(alpha, abs=1e-12)
    assert weights.full == 0.0


@pytest.mark.parametrize("sigma", [1.0, 0.75, 0.5, 0.1, 0.0])
def test_cosine_sigma_falls_from_one_to_zero_on_the_noise_level(sigma: float) -> None:
    first, last = (
        SCHEDULES["cosine_sigma"](Step(sigma, 0, 30)),
        SCHEDULES["cosine_sigma"](Step(sigma, 29, 30)),
    )
    assert first == last
    assert first.low == pytest.approx((1 + np.cos(np.pi * (1 - sigma))) / 2, abs=1e-15)
    assert first.full == 0.0


@pytest.mark.parametrize(("sigma", "start", "alpha"), [(0.6, 0.6, 1.0), (0.3, 0.6, 0.5), (0.25, 1.0, 0.25)])
def test_linear_sigma_is_the_noise_level_over_the_passs_first(
    sigma: float, start: float, alpha: float
) -> None:
    assert SCHEDULES["linear_sigma"](Step(sigma, 3, 9, start)).low == pytest.approx(alpha, rel=1e-15)


def test_strength_multiplies_both_weights() -> None:
    assert GuidanceWeights(0.5, full=0.25).times(2.0) == (1.0, 0.5)


@pytest.mark.parametrize(("index", "alpha"), [(0, 1.0), (15, 0.5), (20, 0.25), (25, 0.067), (29, 0.0027)])
def test_cosine_decay_follows_the_index_alone(index: int, alpha: float) -> None:
    early = SCHEDULES["cosine_decay"](Step(0.99, index, 30))
    late = SCHEDULES["cosine_decay"](Step(0.01, index, 30))
    assert early == late
    assert early.low == pytest.approx(alpha, abs=5e-4)
    assert early.full == 0.0


def test_constant_schedule_is_one_everywhere() -> None:
    for index in (0, 7, 29):
        assert SCHEDULES["constant"](Step(0.3, index, 30)) == GuidanceWeights(low=1.0, full=0.0)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"off"}))
def test_every_other_schedule_pulls_at_the_first_step(name: str) -> None:
    assert SCHEDULES[name](Step(1.0, 0, 30)).active


def test_weights_are_active_if_either_part_is() -> None:
    assert GuidanceWeights(0.0, full=0.1).active
    assert GuidanceWeights(0.1).active
    assert not GuidanceWeights(0.0).active
