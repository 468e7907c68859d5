"""The straight path between noise and image, and its Euler step."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from imax_dist.method.flow import endpoint, euler_step, interpolate, velocity_towards

SIGMAS = (1.0, 0.75, 0.2, 1e-3)


def _pair(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn(2, 4, 5, 7, generator=rng, dtype=torch.float64)
    noise = torch.randn(2, 4, 5, 7, generator=rng, dtype=torch.float64)
    return image, noise


def test_interpolate_is_noise_at_one_and_image_at_zero(rng: torch.Generator) -> None:
    image, noise = _pair(rng)
    assert torch.equal(interpolate(image, noise, 1.0), noise)
    assert torch.equal(interpolate(image, noise, 0.0), image)


def test_interpolate_in_paper_time_is_t_image_plus_rest_noise(rng: torch.Generator) -> None:
    image, noise = _pair(rng)
    t = 0.3
    expected = t * image.numpy() + (1 - t) * noise.numpy()
    torch.testing.assert_close(interpolate(image, noise, 1 - t), torch.from_numpy(expected))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_endpoint_of_the_true_velocity_is_the_image(rng: torch.Generator, sigma: float) -> None:
    image, noise = _pair(rng)
    x = interpolate(image, noise, sigma)
    torch.testing.assert_close(endpoint(x, noise - image, sigma), image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_velocity_towards_the_image_is_the_true_velocity(rng: torch.Generator, sigma: float) -> None:
    image, noise = _pair(rng)
    x = interpolate(image, noise, sigma)
    torch.testing.assert_close(velocity_towards(x, image, sigma), noise - image, rtol=0, atol=1e-11)


def test_velocity_towards_undoes_endpoint(rng: torch.Generator) -> None:
    x, velocity = _pair(rng)
    again = velocity_towards(x, endpoint(x, velocity, 0.4), 0.4)
    torch.testing.assert_close(again, velocity, rtol=0, atol=1e-12)


def test_euler_steps_along_a_straight_path_reach_the_image(rng: torch.Generator) -> None:
    image, noise = _pair(rng)
    x, sigmas = noise, (1.0, 0.9, 0.5, 0.1, 0.0)
    for sigma, following in pairwise(sigmas):
        x = euler_step(x, noise - image, sigma, following)
        torch.testing.assert_close(x, interpolate(image, noise, following), rtol=0, atol=1e-12)


def test_one_euler_step_to_zero_is_the_endpoint(rng: torch.Generator) -> None:
    x, velocity = _pair(rng)
    torch.testing.assert_close(
        euler_step(x, velocity, 0.7, 0.0), endpoint(x, velocity, 0.7), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("sigma", [0.0, -0.1, 1.0001, float("nan")])
def test_velocity_towards_refuses_sigma_outside_zero_one(rng: torch.Generator, sigma: float) -> None:
    x, image = _pair(rng)
    with pytest.raises(ValueError, match=r"needs sigma in \(0, 1\], got"):
        velocity_towards(x, image, sigma)
