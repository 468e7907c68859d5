from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from imax_dist.errors import BadValue
from imax_dist.study.scenes import Scene, render, sample_scene
from imax_dist.study.scenes.canvas import View


def shrink(picture: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.float64]:
    height, width = (side // factor for side in picture.shape[:2])
    return picture.reshape(height, factor, width, factor, 3).astype(float).mean((1, 3))


def test_rendering_is_deterministic() -> None:
    assert np.array_equal(render(sample_scene(1), 96, 128), render(sample_scene(1), 96, 128))


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (160, 96)])
def test_a_larger_render_is_the_same_picture(size: tuple[int, int]) -> None:
    for seed in range(6):
        small = render(sample_scene(seed), *size)
        large = render(sample_scene(seed), size[0] * 4, size[1] * 4)
        assert np.abs(shrink(large, 4) - small).mean() < 2.5


def test_a_larger_render_holds_detail_the_small_one_cannot() -> None:
    for scene in (house(paint="red"), house(kind="tree"), house(kind="boat", ground="sea")):
        large = render(scene, 512, 512).astype(float)
        held = np.kron(shrink(large.astype(np.uint8), 4), np.ones((4, 4, 1)))
        assert np.sqrt(np.square(large - held).mean()) > 4


def house(**changes: object) -> Scene:
    plain = Scene("blue", "red", "left", "meadow", "house", "white", 1, (), 0.5, 11)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_edges_are_anti_aliased() -> None:
    picture = render(house(), 128, 128)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_a_zoomed_window_matches_the_crop_of_a_larger_render() -> None:
    scene = sample_scene(7)
    window = render(scene, 128, 128, zoom=View(left=0.25, top=0.5, height=0.5))
    crop = render(scene, 256, 256)[128:256, 64:192]
    assert np.abs(window.astype(int) - crop).max() <= 1


def test_an_extra_moves_nothing_else() -> None:
    bare, birds = render(house(), 128, 128), render(house(extras=("birds",)), 128, 128)
    changed = np.nonzero(np.any(bare != birds, axis=-1))[0]
    assert len(changed) > 0
    assert changed.max() < 0.42 * 128


def test_a_picture_of_fewer_than_16_pixels_is_refused() -> None:
    with pytest.raises(BadValue, match="128x8 is too small; ask for 16 pixels"):
        render(sample_scene(0), 8, 128)
