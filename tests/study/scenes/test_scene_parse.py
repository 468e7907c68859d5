from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from imax_dist.errors import BadValue
from imax_dist.study.scenes import parse, render, sample_scene
from imax_dist.study.scenes.parse import FACTS, matches


@pytest.mark.parametrize(
    ("height", "width", "n"),
    [(128, 128, 150), (256, 256, 150), (512, 512, 30), (128, 192, 50), (192, 128, 50)],
)
def test_the_parser_recovers_every_fact_of_97_in_100_true_renders(height: int, width: int, n: int) -> None:
    wrong: Counter[str] = Counter()
    complete = 0
    for scene in (sample_scene(5_000_000 + k) for k in range(n)):
        right = matches(parse(render(scene, height, width)), scene.facts())
        wrong.update(name for name, held in right.items() if not held)
        complete += all(right.values())
    assert complete >= 0.97 * n, dict(wrong)


def test_the_parser_sees_the_picture_and_not_the_scene() -> None:
    mirrored = 0
    for scene in (sample_scene(k) for k in range(40)):
        found = parse(render(scene, 128, 128)[:, ::-1])
        expected = {"left": "right", "right": "left", "middle": "middle"}[scene.side]
        mirrored += found["side"] == expected
    assert mirrored >= 39


def test_two_suns_are_counted() -> None:
    scene = sample_scene(4)
    picture = render(scene, 128, 128)
    twice = np.concatenate([picture, picture], axis=1)
    assert parse(twice)["lights"] == 2


def test_noise_has_no_sun_and_no_objects() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    found = parse(noise)
    assert found["lights"] == 0
    assert found["side"] is None
    assert set(found) == set(FACTS)


def test_a_picture_too_small_to_read_is_refused() -> None:
    with pytest.raises(BadValue, match="too small; give 64 px"):
        parse(np.zeros((32, 128, 3), np.uint8))
