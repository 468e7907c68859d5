from __future__ import annotations

import numpy as np

from imax_dist.study.scenes.regions import grow, regions, shrink


def disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= (radius + 0.4) ** 2


def test_regions_touching_only_at_corners_stay_apart() -> None:
    mask = np.eye(4, dtype=bool)
    assert len(regions(mask, smallest=1)) == 4


def test_a_spiral_is_one_region() -> None:
    rows = ["11111", "00001", "11101", "10001", "11111"]
    mask = np.array([[c == "1" for c in row] for row in rows])
    found = regions(mask, smallest=1)
    assert [region.area for region in found] == [int(mask.sum())]


def test_labels_agree_with_a_flood_fill() -> None:
    mask = np.random.default_rng(0).random((40, 50)) < 0.55
    left, areas = mask.copy(), []
    while left.any():
        seed = np.zeros_like(left)
        seed[tuple(np.argwhere(left)[0])] = True
        while (more := grow(seed, 1) & mask).sum() > seed.sum():
            seed = more
        areas.append(int(seed.sum()))
        left &= ~seed
    assert sorted(areas) == sorted(region.area for region in regions(mask, smallest=1))


def test_join_bridges_a_gap_of_twice_its_pixels_and_counts_only_the_mask() -> None:
    mask = np.zeros((5, 12), bool)
    mask[2, :4] = mask[2, 8:] = True
    assert len(regions(mask, smallest=1, join=1)) == 2
    assert [region.area for region in regions(mask, smallest=1, join=2)] == [8]


def test_shapes_are_told_apart_by_fullness_and_disc_overlap() -> None:
    round_one = regions(disc(12), smallest=1)[0]
    square = regions(np.ones((20, 20), bool), smallest=1)[0]
    triangle = regions(np.tril(np.ones((20, 20), bool)), smallest=1)[0]
    assert round_one.disc_overlap() > 0.92 > 0.80 > square.disc_overlap()
    assert triangle.fullness() < 0.6 < 0.7 < round_one.fullness() < 0.85 < square.fullness()


def test_holes_are_the_missing_share_between_first_and_last_pixels() -> None:
    mask = np.ones((10, 10), bool)
    mask[4:6, 4:6] = False
    assert np.isclose(regions(mask, smallest=1)[0].holes(), 0.04)


def test_shrink_undoes_grow_on_a_disc() -> None:
    mask = np.pad(disc(8), 6)
    assert np.array_equal(shrink(grow(mask, 2), 2) & mask, mask)
