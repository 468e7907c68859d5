"""SEGA's factors against an independent form: noise is scaled evenly, a picture is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from imax_dist.method.rope import base_frequencies, rope_table
from imax_dist.method.sega import (
    ALPHA,
    KAPPA,
    Spectrum,
    component_factors,
    flatness,
    power_spectrum,
    scaled_by_component,
)

AXES = (4, 14, 14)
FREQUENCIES = [base_frequencies(dim, 10_000.0 * 4) for dim in AXES]


def factors(latents: torch.Tensor, *, scale: float = 4.0) -> list[torch.Tensor]:
    return component_factors(Spectrum.of(latents), FREQUENCIES, (None, 2, 3), patch=2, scale=scale)


def smooth(rng: torch.Generator, height: int, width: int) -> torch.Tensor:
    """Latents of an image: power that falls with the square of the frequency."""
    noise = torch.fft.fft2(torch.randn(1, 4, height, width, generator=rng, dtype=torch.float64))
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    radius = (rows.square() + columns.square()).sqrt().clamp(min=1.0 / max(height, width))
    return torch.fft.ifft2(noise / radius).real


def by_hand(latents: np.ndarray, frequencies: np.ndarray, axis: int, spread: float) -> np.ndarray:
    """m_d with one loop a component, from the formulas alone."""
    side = latents.shape[axis]
    planes = latents - latents.mean((2, 3), keepdims=True)
    power = (np.abs(np.fft.fft2(planes)) ** 2).mean((0, 1))
    profile = power.mean(1 if axis == 2 else 0)
    logs = []
    for omega in frequencies:
        place = min(max(omega / (2 * math.pi) / 2 * side, 1.0), side // 2)
        low = min(int(place), side // 2 - 1)
        logs.append(np.log(profile[low]) * (1 - place + low) + np.log(profile[low + 1]) * (place - low))
    z = (np.array(logs) - np.mean(logs)) / np.std(logs)
    bounded = np.tanh(1.5 * z)
    return np.asarray(4.0**KAPPA * (1 - spread * ALPHA * (bounded - bounded.mean())))


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_factors_are_those_of_the_formulas(rng: torch.Generator, size: tuple[int, int]) -> None:
    latents = smooth(rng, *size)
    spread = 1.0 - float(flatness(power_spectrum(latents)))
    for dim, mine, own in zip((2, 3), factors(latents)[1:], FREQUENCIES[1:], strict=True):
        np.testing.assert_allclose(mine, by_hand(latents.numpy(), own.numpy(), dim, spread), rtol=1e-9)


def test_noise_is_scaled_evenly_and_an_image_is_not(rng: torch.Generator) -> None:
    noise = factors(torch.randn(1, 16, 64, 64, generator=rng, dtype=torch.float64))
    image = factors(smooth(rng, 64, 64))
    for even, uneven in zip(noise[1:], image[1:], strict=True):
        assert float((even - 4.0**KAPPA).abs().max()) < 1e-3
        assert float(uneven.max() - uneven.min()) > 0.05


def test_components_with_less_energy_are_sharpened_more(rng: torch.Generator) -> None:
    row = factors(smooth(rng, 64, 64))[1]
    assert float(row[0]) > 4.0**KAPPA > float(row[-1])


def test_an_axis_that_counts_no_pixels_keeps_its_logits(rng: torch.Generator) -> None:
    assert torch.equal(factors(smooth(rng, 16, 16))[0], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("latents", [torch.zeros(1, 4, 16, 16), torch.full((1, 4, 8, 24), 3.0)])
def test_flat_latents_have_finite_factors(latents: torch.Tensor) -> None:
    assert all(bool(torch.isfinite(one).all()) for one in factors(latents))


def test_a_factor_multiplies_its_component_of_every_logit_by_its_square(rng: torch.Generator) -> None:
    query, key = torch.randn(2, 32, generator=rng, dtype=torch.float64)
    ids = torch.randint(0, 60, (2, 3), generator=rng).double()
    table = rope_table(ids, FREQUENCIES)
    own = factors(smooth(rng, 24, 40))
    scaled = scaled_by_component(table, own)

    def parts(rope: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
        turn = [(rope[0] + 1j * rope[1])[row, 0::2].numpy() for row in range(2)]
        pairs = [x.numpy()[0::2] + 1j * x.numpy()[1::2] for x in (query, key)]
        return np.asarray((pairs[0] * turn[0] * np.conj(pairs[1] * turn[1])).real)

    np.testing.assert_allclose(parts(scaled), torch.cat(own).square().numpy() * parts(table), rtol=1e-12)
