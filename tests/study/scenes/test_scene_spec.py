from __future__ import annotations

import json

import numpy as np
import pytest

from imax_dist.errors import BadValue
from imax_dist.study.scenes import Scene, sample_scene
from imax_dist.study.scenes.spec import SIZES


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    assert sample_scene(5) == sample_scene(5)
    assert len({sample_scene(seed) for seed in range(50)}) == 50


def test_a_scene_survives_json() -> None:
    scene = sample_scene(3)
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_object_sizes_are_log_uniform_for_single_objects() -> None:
    sizes = np.log([s.size for s in map(sample_scene, range(1500)) if s.count == 1])
    low, high = np.log(SIZES)
    shares, _ = np.histogram(sizes, bins=4, range=(low, high))
    assert shares.sum() == len(sizes)
    assert shares.min() > 0.7 * len(sizes) / 4


def test_no_scene_hides_a_fact_by_its_colour() -> None:
    for scene in map(sample_scene, range(500)):
        assert (scene.paint, scene.ground) != ("white", "snow")
        assert (scene.paint, scene.sky) != ("black", "dark")
        assert not (scene.sky == "dark" and "birds" in scene.extras)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("sky", "green", "sky is 'green'; choose from blue"),
        ("count", 4, "count is 4; choose 1 to 3"),
        ("extras", ["comets"], "unknown extra 'comets'"),
        ("size", 0.9, "size is 0.9; choose 0.05 to 0.6"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        Scene.from_json({**sample_scene(0).to_json(), field: value})


def test_missing_and_unknown_fields_are_named() -> None:
    values = sample_scene(0).to_json()
    values["colour"] = values.pop("paint")
    with pytest.raises(BadValue, match="missing or unknown fields: colour, paint"):
        Scene.from_json(values)
