"""The logit factor, and that it may live in the RoPE table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb

from imax_dist.method.proportional_attention import (
    LOGIT_FACTORS,
    SequenceLengths,
    entropy,
    fold_into_table,
)
from imax_dist.method.rope import base_frequencies, rope_table
from imax_dist.shapes import RopeTable

AXES = (4, 6, 6)


def flux_lengths(side: int, copies: int) -> SequenceLengths:
    """FLUX.1 at ``side`` tokens a side with ``copies`` of 512 text tokens."""
    return SequenceLengths(
        image=side**2, text=512 * copies, text_once=512, trained=64**2 + 512, scale=side / 64
    )


def table(rng: torch.Generator, tokens: int) -> RopeTable:
    ids = torch.randint(0, 200, (tokens, 3), generator=rng).double()
    return rope_table(ids, [base_frequencies(dim, 10_000.0) for dim in AXES])


def logits(query: torch.Tensor, key: torch.Tensor, rope: RopeTable) -> np.ndarray:
    """Scaled dot products of rotated pairs, as complex numbers: an independent form."""

    def rotated(x: torch.Tensor) -> np.ndarray:
        pairs = x.numpy()[..., 0::2] + 1j * x.numpy()[..., 1::2]
        return pairs * (rope.cos.numpy()[:, 0::2] + 1j * rope.sin.numpy()[:, 0::2])

    products = np.einsum("hqd,hkd->hqk", rotated(query), rotated(key).conj()).real
    return np.asarray(products / math.sqrt(sum(AXES)))


@pytest.mark.parametrize("factor", [1.0, 1.153, 2.0, 0.25])
def test_folding_a_factor_into_the_table_multiplies_every_logit_by_it(
    rng: torch.Generator, factor: float
) -> None:
    query, key = torch.randn(2, 3, 9, sum(AXES), generator=rng, dtype=torch.float64)
    rope = table(rng, 9)
    plain, folded = logits(query, key, rope), logits(query, key, fold_into_table(rope, factor))
    np.testing.assert_allclose(folded, factor * plain, rtol=1e-12, atol=1e-13)


def test_folding_works_through_diffusers_own_rotation(rng: torch.Generator) -> None:
    query, key = torch.randn(2, 1, 3, 9, sum(AXES), generator=rng)
    rope = table(rng, 9)
    scaled = fold_into_table(rope, 1.153)

    def products(cos_sin: RopeTable) -> torch.Tensor:
        pair = (cos_sin.cos.float(), cos_sin.sin.float())
        turned_query = apply_rotary_emb(query, pair)
        found: torch.Tensor = turned_query @ apply_rotary_emb(key, pair).transpose(-1, -2)
        return found

    torch.testing.assert_close(products(scaled), 1.153 * products(rope), rtol=1e-5, atol=1e-5)


def test_folding_keeps_the_plain_table_and_its_dtype(rng: torch.Generator) -> None:
    rope = table(rng, 4)
    before = rope.cos.clone()
    scaled = fold_into_table(rope, 4.0)
    assert torch.equal(rope.cos, before)
    assert scaled.cos.dtype is torch.float64
    torch.testing.assert_close(scaled.sin, 2.0 * rope.sin)


@pytest.mark.parametrize(
    ("side", "copies", "factor"), [(64, 1, 1.0), (128, 4, 1.079), (192, 9, 1.123), (256, 16, 1.153)]
)
def test_joint_factor_is_the_known_number_of_the_authors_code(side: int, copies: int, factor: float) -> None:
    assert LOGIT_FACTORS["joint"](flux_lengths(side, copies)) == pytest.approx(factor, abs=5e-4)


@pytest.mark.parametrize("length", [4608, 18_432, 303_750])
def test_entropy_is_the_root_of_the_logarithm_to_the_trained_base(length: int) -> None:
    expected = np.sqrt(np.log2(length) / np.log2(4608))
    assert entropy(length, 4608) == pytest.approx(expected, rel=1e-14)


def test_one_text_is_joint_with_a_single_copy_however_many_there_are() -> None:
    one_text, joint = LOGIT_FACTORS["one_text"], LOGIT_FACTORS["joint"]
    assert one_text(flux_lengths(256, 16)) == joint(flux_lengths(256, 1))
    assert one_text(flux_lengths(256, 16)) < joint(flux_lengths(256, 16))


@pytest.mark.parametrize("name", sorted(LOGIT_FACTORS))
def test_every_factor_is_one_at_native_size(name: str) -> None:
    assert LOGIT_FACTORS[name](flux_lengths(64, 1)) == pytest.approx(1.0, abs=1e-15)


def test_printed_is_the_linear_scale_and_off_is_one() -> None:
    assert LOGIT_FACTORS["printed"](flux_lengths(256, 16)) == 4.0
    assert LOGIT_FACTORS["off"](flux_lengths(256, 16)) == 1.0


@pytest.mark.parametrize(("length", "trained"), [(1, 4608), (4608, 1), (0, 0)])
def test_entropy_refuses_lengths_of_one_or_less(length: int, trained: int) -> None:
    with pytest.raises(ValueError, match=r"needs lengths above 1, got"):
        entropy(length, trained)
