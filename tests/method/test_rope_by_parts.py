"""YaRN by parts and DyPE against their formulas, written again with NumPy, one frequency at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imax_dist.method.proportional_attention import LOGIT_FACTORS, SequenceLengths
from imax_dist.method.rope import RopeContext, base_frequencies
from imax_dist.method.rope_by_parts import dype, dype_ntk, turns_index, yarn

THETA = 1e4


def context(scale: float, *, sigma: float = 0.5, tokens: int = 64) -> RopeContext:
    return RopeContext(theta=THETA, scale=scale, factor=2.5, sigma=sigma, tokens=tokens)


def ramp(index: int, turns: tuple[float, float], dim: int, tokens: int) -> float:
    """The share of the slower form: 0 from ``turns[0]`` turns on, 1 up to ``turns[1]``."""
    first, last = (dim * np.log(tokens / (2 * np.pi * r)) / (2 * np.log(THETA)) for r in turns)
    first, last = np.clip([np.floor(first), np.ceil(last)], 0, dim // 2)
    return float(np.clip((index - first) / (last - first if last > first else 0.001), 0, 1))


def by_parts(dim: int, scale: float, tokens: int, kappa: float) -> list[float]:
    frequencies = []
    for k in range(dim // 2):
        kept = THETA ** (-2 * k / dim)
        scaled = (THETA * scale ** (dim / (dim - 2))) ** (-2 * k / dim)
        share = ramp(k, (1.25 * kappa, 0.75 * kappa), dim, tokens)
        slow = (1 - share) * scaled + share * kept / scale
        share = ramp(k, (16 * kappa, 2 * kappa), dim, tokens)
        frequencies.append((1 - share) * kept + share * slow)
    return frequencies


def close(ours: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", [16, 56])
@pytest.mark.parametrize("scale", [1.0, 2.0, 3.7])
@pytest.mark.parametrize("tokens", [8, 64, 128])
def test_yarn_is_its_two_ramps(dim: int, scale: float, tokens: int) -> None:
    close(yarn(dim, context(scale, tokens=tokens)), by_parts(dim, scale, tokens, 1.0))


@pytest.mark.parametrize("dim", [16, 56])
@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.1])
@pytest.mark.parametrize("tokens", [8, 64])
def test_dype_is_yarn_with_thresholds_times_sigma_squared(dim: int, sigma: float, tokens: int) -> None:
    close(dype(dim, context(4.0, sigma=sigma, tokens=tokens)), by_parts(dim, 4.0, tokens, sigma**2))


def test_dype_is_yarn_at_pure_noise_and_as_trained_at_the_image() -> None:
    assert torch.equal(dype(56, context(4.0, sigma=1.0)), yarn(56, context(4.0)))
    assert torch.equal(dype(56, context(4.0, sigma=1e-4)), base_frequencies(56, THETA))


def test_at_a_tenth_of_the_noise_dype_leaves_thirteen_of_flux_frequencies_alone() -> None:
    """The formula of February 2026; the one before divided those from index 8 on by the scale."""
    ours, kept = dype(56, context(4.0, sigma=0.1)), base_frequencies(56, THETA)
    assert torch.equal(ours[:13], kept[:13])
    assert (ours[13:] < kept[13:]).all()


def test_yarn_interpolates_the_slow_and_keeps_the_fast_frequencies_of_flux() -> None:
    """64 tokens: index 0 makes 10.2 turns, the last 0.0014."""
    ours, kept = yarn(56, context(4.0)), base_frequencies(56, THETA)
    assert ours[0] == kept[0]
    torch.testing.assert_close(ours[9:], kept[9:] / 4.0, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", [yarn, dype])
@pytest.mark.parametrize("sigma", [1.0, 0.3, 0.02])
def test_no_frequency_leaves_the_room_between_interpolation_and_training(rule: object, sigma: float) -> None:
    assert callable(rule)
    ours, kept = rule(56, context(4.0, sigma=sigma)), base_frequencies(56, THETA)
    assert (ours <= kept * (1 + 1e-12)).all()
    assert (ours >= kept / 4.0 * (1 - 1e-12)).all()


@pytest.mark.parametrize("rule", [yarn, dype, dype_ntk])
def test_at_native_size_and_below_nothing_is_scaled(rule: object) -> None:
    assert callable(rule)
    for scale in (1.0, 0.7):
        torch.testing.assert_close(rule(56, context(scale)), base_frequencies(56, THETA), rtol=1e-13, atol=0)


@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.1])
def test_dype_ntk_is_its_power_of_the_scale(sigma: float) -> None:
    k = np.arange(28)
    expected = THETA ** (-2 * k / 56) / 3.0 ** (2 * sigma**2 * 2 * k / 54)
    torch.testing.assert_close(
        dype_ntk(56, context(3.0, sigma=sigma)), torch.from_numpy(expected), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("turns", [10.0, 2.0, 0.75])
def test_the_index_of_a_number_of_turns_makes_that_many(turns: float) -> None:
    index = turns_index(turns, 56, context(4.0))
    assert 64 * THETA ** (-2 * index / 56) / (2 * np.pi) == pytest.approx(turns, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_yarns_temperature_takes_the_place_of_proportional_attention(scale: float) -> None:
    """cos and sin times 0.1 ln s + 1 is every logit times its square: 1.296 at s = 4."""
    lengths = SequenceLengths(image=65_536, text=512, text_once=512, trained=4608, scale=scale)
    assert LOGIT_FACTORS["yarn"](lengths) == pytest.approx((1 + 0.1 * np.log(scale)) ** 2, rel=1e-14)
