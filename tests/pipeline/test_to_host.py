"""Bands on their way to the host: the same numbers, in order, one copied while the next is made."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from imax_dist.pipeline.to_host import double_buffered, on_host

HEIGHTS = [5, 5, 2, 7, 0, 1]
"""Rows of each band."""


def made(log: list[str]) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for number, height in enumerate(HEIGHTS):
        log.append(f"made {number}")
        yield torch.randn(height, 3, 3, generator=generator)


def test_bands_arrive_with_their_bits_and_in_order() -> None:
    expected = torch.cat(list(made([])))
    found = torch.cat([rows.clone() for rows in double_buffered(made([]), pinned=False)])
    assert torch.equal(found, expected)


def test_the_next_band_is_begun_before_one_is_handed_out() -> None:
    log: list[str] = []
    for number, _ in enumerate(double_buffered(made(log), pinned=False)):
        log.append(f"taken {number}")
    last = len(HEIGHTS) - 1
    expected = ["made 0"]
    for number in range(last):
        expected += [f"made {number + 1}", f"taken {number}"]
    assert log == [*expected, f"taken {last}"]


def test_no_more_than_two_buffers_are_made() -> None:
    places = {rows.data_ptr() for rows in double_buffered(iter(torch.ones(9, 4, 2, 3)), pinned=False)}
    assert len(places) == 2


def test_nothing_comes_of_no_bands_and_a_cpu_copies_none() -> None:
    assert list(double_buffered(iter(()), pinned=False)) == []
    band = torch.ones(2, 2, 3)
    (found,) = on_host(iter([band]), torch.device("cpu"))
    assert found is band
