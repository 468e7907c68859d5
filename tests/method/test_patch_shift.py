"""Padding in, cropping out, at every other step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imax_dist.geometry import LatentGrid
from imax_dist.method.patch_shift import is_shifted, shift_in, shift_out, shifted_grid


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (1, 1)])
def test_shift_out_undoes_shift_in(rng: torch.Generator, height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, generator=rng)
    assert torch.equal(shift_out(shift_in(x)), x)


def test_shift_in_puts_one_ring_of_zeros_around_the_latents(rng: torch.Generator) -> None:
    x = torch.randn(1, 2, 4, 6, generator=rng)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert torch.equal(shift_in(x), torch.from_numpy(expected))


def test_shifted_patches_straddle_the_unshifted_ones() -> None:
    """A 2 x 2 patch of the shifted grid holds pixels of four patches of the plain one."""
    rows, columns = torch.meshgrid(torch.arange(8) // 2, torch.arange(8) // 2, indexing="ij")
    patch_of_pixel = (rows * 4 + columns)[None, None].double()
    inner = shift_in(patch_of_pixel)[0, 0, 2:4, 2:4]
    assert len(set(inner.flatten().tolist())) == 4


def test_shifted_grid_is_the_shape_shift_in_makes(rng: torch.Generator) -> None:
    x = torch.randn(1, 1, 6, 9, generator=rng)
    grid = shifted_grid(LatentGrid(height=6, width=9))
    assert (grid.height, grid.width) == tuple(shift_in(x).shape[2:])


def test_a_shifted_4k_step_has_257_by_257_tokens() -> None:
    tokens = shifted_grid(LatentGrid(512, 512)).tokens(patch=2)
    assert (tokens.height, tokens.width, tokens.count) == (257, 257, 66_049)


def test_shift_out_gives_memory_of_its_own(rng: torch.Generator) -> None:
    cropped = shift_out(torch.randn(1, 1, 6, 6, generator=rng))
    assert cropped.is_contiguous()


def test_every_second_step_is_shifted_beginning_with_the_first() -> None:
    assert [is_shifted(index) for index in range(5)] == [True, False, True, False, True]
