"""HiFlow's acceleration term."""

from __future__ import annotations

import torch

from imax_dist.method.guidance import accelerated_velocity


def test_without_strength_the_velocity_is_left_alone(rng: torch.Generator) -> None:
    velocity, reference_velocity, carried = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64, generator=rng)
    assert torch.equal(accelerated_velocity(velocity, reference_velocity, carried, 0.0), velocity)


def test_at_full_strength_the_velocity_changes_exactly_as_the_references(rng: torch.Generator) -> None:
    velocity, before, reference_before, now = torch.randn(4, 1, 2, 4, 4, dtype=torch.float64, generator=rng)
    ours = accelerated_velocity(velocity, now, before - reference_before, 1.0)
    torch.testing.assert_close(ours - before, now - reference_before, rtol=0, atol=1e-12)
