"""Any length is split into pieces that differ by one at most, and comes together again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_ranks

from imax_dist.errors import BadConfig
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, single_rank
from imax_dist.parallel.sequence import JointLayout, gather, shard, split_lengths
from imax_dist.parallel.topology import Topology


@settings(deadline=None, max_examples=200, derandomize=True)
@given(length=st.integers(0, 300_000), parts=st.integers(1, 64))
def test_pieces_add_up_and_differ_by_one_at_most(length: int, parts: int) -> None:
    lengths = split_lengths(length, parts)
    assert (len(lengths), sum(lengths)) == (parts, length)
    assert max(lengths) - min(lengths) <= 1
    assert list(lengths) == sorted(lengths, reverse=True)


def test_an_odd_grid_is_split_without_padding() -> None:
    """257 x 257 is what patch shift makes of a 4096 px FLUX poster."""
    assert split_lengths(257 * 257, 4) == (16_513, 16_512, 16_512, 16_512)


def test_a_joint_layout_splits_text_and_image_apart() -> None:
    layout = JointLayout.of(text_tokens=7, image_tokens=10, ranks=4)
    assert (layout.text, layout.image, layout.joint) == ((2, 2, 2, 1), (3, 3, 2, 2), (5, 5, 4, 3))


def test_replicated_text_is_whole_on_every_rank() -> None:
    layout = JointLayout.of(text_tokens=7, image_tokens=10, ranks=4, text_replicated=True)
    assert layout.text == (7, 7, 7, 7)


def test_less_image_than_ranks_is_refused_and_less_text_is_not() -> None:
    assert JointLayout.of(text_tokens=1, image_tokens=4, ranks=4).text == (1, 0, 0, 0)
    with pytest.raises(BadConfig, match=r"3 image tokens cannot be split over 4 ranks; start at most 3"):
        JointLayout.of(text_tokens=7, image_tokens=3, ranks=4)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_shards_in_rank_order_are_the_whole(dim: int, rng: torch.Generator) -> None:
    x = torch.randn(7, 7, 7, generator=rng)
    lengths = split_lengths(7, 3)
    meshes = [SequenceMesh(ulysses=1, ring=3, rank=rank) for rank in range(3)]
    assert torch.equal(torch.cat([shard(x, lengths, mesh, dim=dim) for mesh in meshes], dim=dim), x)


def test_one_rank_keeps_all(rng: torch.Generator) -> None:
    x = torch.randn(2, 5, generator=rng)
    assert torch.equal(gather(shard(x, (5,), single_rank(), dim=1), (5,), single_rank(), dim=1), x)


LENGTHS = [(3, 3, 2), (1, 1, 0), (5, 1, 9)]


def there_and_back(topology: Topology) -> list[Any]:
    """Shard and gather along each dim, with equal, missing and unequal pieces."""
    mesh = build_mesh(topology, ulysses=1, ring=3)
    gathered = []
    for lengths in LENGTHS:
        for dim in (0, 1, 2):
            gathered.append(
                gather(shard(cube(lengths), lengths, mesh, dim=dim), lengths, mesh, dim=dim).numpy()
            )
    return gathered


def cube(lengths: tuple[int, ...]) -> torch.Tensor:
    side = sum(lengths)
    return torch.arange(side**3, dtype=torch.float64).reshape(side, side, side)


def test_gathered_shards_are_the_whole_on_every_rank() -> None:
    expected = [cube(lengths).numpy() for lengths in LENGTHS for _ in range(3)]
    for result in run_ranks(3, there_and_back):
        assert all(np.array_equal(found, whole) for found, whole in zip(result, expected, strict=True))
