"""Frequency rules against their formulas, the table against diffusers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxPosEmbed

from imax_dist.method.rope import (
    RopeContext,
    base_frequencies,
    floored,
    interpolated,
    ntk,
    ntk_fixed,
    rope_table,
    unchanged,
)
from imax_dist.method.rope_rules import FREQUENCY_RULES, RULES_OF_TIME

AXES = (16, 56, 56)
THETA = 10_000.0


def context(scale: float, *, factor: float = 2.5) -> RopeContext:
    return RopeContext(theta=THETA, scale=scale, factor=factor, sigma=0.5)


def powers(dim: int, base: float) -> torch.Tensor:
    """base^(-2k / dim), written with NumPy."""
    return torch.from_numpy(np.power(base, -2.0 * np.arange(dim // 2) / dim))


def image_ids(height: int, width: int) -> torch.Tensor:
    rows, columns = np.divmod(np.arange(height * width), width)
    return torch.from_numpy(np.stack([np.zeros_like(rows), rows, columns], axis=1)).float()


@pytest.mark.parametrize("dim", AXES)
def test_base_frequencies_are_powers_of_theta(dim: int) -> None:
    ours = base_frequencies(dim, THETA)
    assert ours.dtype is torch.float64
    torch.testing.assert_close(ours, powers(dim, THETA), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dim", AXES)
@pytest.mark.parametrize("scale", [1.0, 2.0, 3.7, 4.0])
@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_ntk_base_is_factor_times_base_times_scale(dim: int, scale: float, factor: float) -> None:
    expected = powers(dim, factor * THETA * scale)
    torch.testing.assert_close(ntk(dim, context(scale, factor=factor)), expected, rtol=1e-13, atol=0)


def test_ntk_fixed_is_ten_times_the_base_at_every_size() -> None:
    for scale in (1.0, 2.0, 4.0, 8.0):
        torch.testing.assert_close(ntk_fixed(56, context(scale)), powers(56, 10 * THETA), rtol=1e-13, atol=0)


def test_ntk_fixed_is_ntk_at_four_times_native() -> None:
    assert torch.equal(ntk_fixed(56, context(1.3)), ntk(56, context(4.0)))


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.2])
def test_interpolation_divides_every_frequency_by_the_scale(scale: float) -> None:
    expected = powers(56, THETA) / scale
    torch.testing.assert_close(interpolated(56, context(scale)), expected, rtol=1e-13, atol=0)


def test_interpolation_never_spreads_positions_below_native_size() -> None:
    assert torch.equal(interpolated(56, context(0.5)), base_frequencies(56, THETA))


def test_unchanged_ignores_scale_and_factor() -> None:
    assert torch.equal(unchanged(56, context(8.0, factor=9.0)), base_frequencies(56, THETA))


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0, 8.0])
def test_floor_is_the_larger_of_rule_and_interpolation(scale: float) -> None:
    expected = np.maximum(powers(56, 2.5 * THETA * scale), powers(56, THETA) / scale)
    ours = floored(ntk)(56, context(scale))
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=0)


def test_floor_holds_the_slowest_dimensions_only() -> None:
    rule, bounded = ntk(56, context(4.0)), floored(ntk)(56, context(4.0))
    held = (bounded > rule).tolist()
    assert 0 < sum(held) < len(held)
    assert held == sorted(held)


def test_floor_of_the_authors_code_holds_ten_of_28_dimensions_at_4k() -> None:
    """Their scale comes from the joint length with its 16 text copies: 4.228, not 4."""
    joint_scale = np.sqrt((256**2 + 16 * 512 - 512) / 64**2)
    assert joint_scale == pytest.approx(4.228, abs=1e-3)
    held = floored(ntk_fixed)(56, context(joint_scale)) > ntk_fixed(56, context(joint_scale))
    assert held.sum() == 10
    assert not held[:18].any()


@pytest.mark.parametrize("rule", sorted(FREQUENCY_RULES))
def test_the_rules_of_time_are_those_that_change_with_sigma(rule: str) -> None:
    """The others' tables are made once a pass."""
    early, late = (FREQUENCY_RULES[rule](56, context(4.0)._replace(sigma=sigma)) for sigma in (0.95, 0.3))
    assert torch.equal(early, late) == (rule not in RULES_OF_TIME)


@pytest.mark.parametrize("rule", sorted(FREQUENCY_RULES))
def test_floored_rules_are_the_trained_frequencies_at_native_size(rule: str) -> None:
    ours = floored(FREQUENCY_RULES[rule])(56, context(1.0))
    assert torch.equal(ours, base_frequencies(56, THETA))


@pytest.mark.parametrize("rule", sorted(FREQUENCY_RULES))
def test_every_rule_gives_half_the_dimension_in_float64(rule: str) -> None:
    ours = FREQUENCY_RULES[rule](16, context(4.0))
    assert ours.shape == (8,)
    assert ours.dtype is torch.float64


def test_rope_table_is_diffusers_own_at_native_size() -> None:
    ids = torch.cat([torch.zeros(5, 3), image_ids(64, 64)])
    cos, sin = FluxPosEmbed(theta=10_000, axes_dim=list(AXES))(ids)
    ours = rope_table(ids, [base_frequencies(dim, THETA) for dim in AXES])
    assert ours.cos.dtype is ours.sin.dtype is torch.float64
    torch.testing.assert_close(ours.cos.float(), cos, rtol=0, atol=1e-7)
    torch.testing.assert_close(ours.sin.float(), sin, rtol=0, atol=1e-7)


def test_rope_table_puts_the_axes_side_by_side_with_pairs_repeated() -> None:
    ids, dims = torch.tensor([[2.0, 3.0], [0.0, 1.0]], dtype=torch.float64), (4, 6)
    ours = rope_table(ids, [base_frequencies(dim, 100.0) for dim in dims])
    for token, position in enumerate(ids.tolist()):
        angles = [
            place * 100.0 ** (-2 * k / dim)
            for place, dim in zip(position, dims, strict=True)
            for k in range(dim // 2)
            for _ in range(2)
        ]
        np.testing.assert_allclose(ours.cos[token], np.cos(angles), rtol=0, atol=1e-14)
        np.testing.assert_allclose(ours.sin[token], np.sin(angles), rtol=0, atol=1e-14)


def test_rope_table_covers_the_whole_head() -> None:
    ours = rope_table(image_ids(3, 5), [base_frequencies(dim, THETA) for dim in AXES])
    assert ours.cos.shape == ours.sin.shape == (15, sum(AXES))


def test_rope_table_keeps_far_positions_exact() -> None:
    """8192 px are 512 tokens: float32 angles would be off in the fifth decimal."""
    ids = torch.tensor([[0.0, 511.5, 4095.0]], dtype=torch.float64)
    ours = rope_table(ids, [base_frequencies(dim, THETA) for dim in AXES])
    expected = np.cos(4095.0 * THETA ** (-2.0 * np.arange(28) / 56))
    np.testing.assert_allclose(ours.cos[0, 72::2], expected, rtol=0, atol=1e-12)


def test_rope_table_refuses_another_number_of_axes() -> None:
    with pytest.raises(ValueError, match=r"ids have 3 axes, but 2 sets of frequencies"):
        rope_table(image_ids(2, 2), [base_frequencies(16, THETA), base_frequencies(56, THETA)])
