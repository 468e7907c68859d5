"""Where the text copies sit, and why n equal copies are one that counts n times."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import (
    COPY_RULES,
    TextCopies,
    cells,
    text_position_ids,
)

SQUARE = TokenGrid(64, 64)


@pytest.mark.parametrize(
    ("target", "native", "expected"),
    [
        (TokenGrid(256, 256), SQUARE, (4, 4)),
        (TokenGrid(64, 64), SQUARE, (1, 1)),
        (TokenGrid(32, 48), SQUARE, (1, 1)),
        (TokenGrid(191, 192), SQUARE, (2, 3)),
        (TokenGrid(128, 384), TokenGrid(37, 111), (3, 3)),
        (TokenGrid(128, 384), SQUARE, (2, 6)),
    ],
)
def test_cells_count_whole_native_cells_and_at_least_one(
    target: TokenGrid, native: TokenGrid, expected: tuple[int, int]
) -> None:
    assert cells(target, native) == expected


def test_grid_puts_copy_i_j_at_64_i_64_j_for_flux_at_4k() -> None:
    copies = COPY_RULES["grid"](TokenGrid(256, 256), SQUARE)
    assert copies.offsets == tuple((64 * i, 64 * j) for i in range(4) for j in range(4))
    assert copies.literal == 16
    assert copies.weight == 1


def test_grid_steps_by_the_native_images_own_height_and_width() -> None:
    copies = COPY_RULES["grid"](TokenGrid(100, 200), TokenGrid(45, 90))
    assert copies.offsets == ((0, 0), (0, 90), (45, 0), (45, 90))


def test_none_is_one_copy_at_the_origin() -> None:
    assert COPY_RULES["none"](TokenGrid(256, 256), SQUARE) == TextCopies(((0, 0),), weight=1)


@pytest.mark.parametrize("target", [TokenGrid(256, 256), TokenGrid(130, 300), TokenGrid(64, 64)])
def test_shared_is_one_literal_copy_that_counts_as_often_as_grid(target: TokenGrid) -> None:
    shared = COPY_RULES["shared"](target, SQUARE)
    assert shared.offsets == ((0, 0),)
    assert shared.weight == COPY_RULES["grid"](target, SQUARE).literal


@pytest.mark.parametrize("rule", sorted(COPY_RULES))
def test_every_rule_is_the_trained_layout_at_native_size(rule: str) -> None:
    assert COPY_RULES[rule](SQUARE, SQUARE) == TextCopies(((0, 0),), weight=1)


def test_position_ids_repeat_each_copys_offset_for_all_its_tokens() -> None:
    copies = TextCopies(offsets=((0, 0), (0, 64), (64, 0)))
    ids = text_position_ids(5, copies)
    expected = [(0, row, column) for row, column in copies.offsets for _ in range(5)]
    np.testing.assert_array_equal(ids.numpy(), np.array(expected, dtype=np.float64))


def test_position_ids_of_a_single_copy_are_all_zero() -> None:
    ids = text_position_ids(512, COPY_RULES["none"](SQUARE, SQUARE))
    assert ids.shape == (512, 3)
    assert not ids.any()


@pytest.mark.parametrize("copies", [1, 4, 16])
def test_n_identical_keys_equal_one_key_with_log_n_added(rng: torch.Generator, copies: int) -> None:
    """Peaked logits, so that a wrong weight would show."""
    text, image = 3.0 * torch.randn(2, 6, 11, generator=rng, dtype=torch.float64)
    text_values, image_values = torch.randn(2, 11, 4, generator=rng, dtype=torch.float64)
    literal = torch.cat([text] * copies + [image], dim=1).softmax(dim=1)
    literal_out = literal @ torch.cat([text_values] * copies + [image_values])
    weighted = torch.cat([text + math.log(copies), image], dim=1).softmax(dim=1)
    weighted_out = weighted @ torch.cat([text_values, image_values])
    torch.testing.assert_close(weighted_out, literal_out, rtol=0, atol=1e-13)


@pytest.mark.parametrize("copies", [1, 4, 16])
def test_log_n_may_be_added_to_the_log_sum_exp_of_the_text_alone(rng: torch.Generator, copies: int) -> None:
    """The form a ring of shards uses: attend to each part, then merge by log-sum-exp."""
    text, image = 3.0 * torch.randn(2, 6, 11, generator=rng, dtype=torch.float64)
    text_values, image_values = torch.randn(2, 11, 4, generator=rng, dtype=torch.float64)
    text_mass = text.logsumexp(dim=1, keepdim=True) + math.log(copies)
    share = torch.sigmoid(text_mass - image.logsumexp(dim=1, keepdim=True))
    merged = share * (text.softmax(1) @ text_values) + (1 - share) * (image.softmax(1) @ image_values)
    literal = torch.cat([text] * copies + [image], dim=1).softmax(dim=1)
    expected = literal @ torch.cat([text_values] * copies + [image_values])
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-13)
