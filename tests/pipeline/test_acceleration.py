"""HiFlow's acceleration term, step by step against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imax_dist.method.acceleration import accelerated_velocity
from imax_dist.method.guidance import Step
from imax_dist.pipeline.acceleration import Accelerated
from imax_dist.pipeline.endpoint import Reference

SIGMAS = (0.6, 0.45, 0.2, 0.0)


def test_without_strength_the_velocity_is_left_alone() -> None:
    velocity, reference_velocity, carried = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    assert torch.equal(accelerated_velocity(velocity, reference_velocity, carried, 0.0), velocity)


def test_at_full_strength_the_velocity_changes_exactly_as_the_references() -> None:
    velocity, before, reference_before, reference_now = torch.randn(4, 1, 2, 4, 4, dtype=torch.float64)
    ours = accelerated_velocity(velocity, reference_now, before - reference_before, 1.0)
    torch.testing.assert_close(ours - before, reference_now - reference_before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_pass_follows_the_published_recursion(strength: float) -> None:
    """v~_i = v_i + beta (v~_(i-1) + vref_i - vref_(i-1) - v_i), beta = strength sigma / start sigma."""
    generator = torch.Generator().manual_seed(0)
    velocities = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator)
    start = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=generator)

    def own_velocity(x: torch.Tensor, step: Step) -> torch.Tensor:
        assert x.shape == velocities[step.index].shape
        return velocities[step.index]

    accelerated = Accelerated(own_velocity, Reference(images, SIGMAS[:-1]), strength)
    x, expected = start, start.numpy()
    before = reference_before = np.zeros(())
    for index, sigma in enumerate(SIGMAS[:-1]):
        x = x + (SIGMAS[index + 1] - sigma) * accelerated(x, Step(sigma, index, 3, SIGMAS[0]))
        own, reference = velocities[index].numpy(), (expected - images[index].numpy()) / sigma
        if index:
            own = own + strength * sigma / 0.6 * (before + reference - reference_before - own)
        expected = expected + (SIGMAS[index + 1] - sigma) * own
        before, reference_before = own, reference
    torch.testing.assert_close(x, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_without_a_reference_or_strength_nothing_is_carried(strength: float) -> None:
    reference = None if strength else Reference(torch.zeros(1, 2, 4, 4), (0.0,))

    def itself(x: torch.Tensor, step: Step) -> torch.Tensor:
        assert step.index == 0
        return x

    velocity = Accelerated(itself, reference, strength)
    x = torch.ones(1, 2, 4, 4)
    assert torch.equal(velocity(x, Step(0.5, 0, 2)), x)
    assert velocity.carried is None
