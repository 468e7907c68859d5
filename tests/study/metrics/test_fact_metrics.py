from __future__ import annotations

import numpy as np
import pytest

from imax_dist.errors import BadValue
from imax_dist.study.metrics.interval import bootstrap
from imax_dist.study.scenes import render, sample_scene
from imax_dist.study.train.measure import facts_recovered


def test_an_interval_holds_its_mean_and_narrows_with_n() -> None:
    few, many = bootstrap([0.0, 1.0] * 8), bootstrap([0.0, 1.0] * 200)
    assert few.low < few.mean == 0.5 < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert str(many).endswith("(n=400)")


def test_an_interval_covers_the_truth_about_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    held = [bootstrap(rng.normal(size=60).tolist(), draws=400, seed=k) for k in range(200)]
    assert 0.89 <= np.mean([i.low <= 0 <= i.high for i in held]) <= 0.99


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(BadValue, match="no values were given"):
        bootstrap([])


def test_facts_are_recovered_from_the_right_pictures_and_not_from_others() -> None:
    scenes = [sample_scene(k) for k in range(12)]
    pictures = [render(scene, 128, 128) for scene in scenes]
    assert facts_recovered(pictures, scenes)["mean"].mean > 0.98
    others = facts_recovered(pictures[1:] + pictures[:1], scenes)
    assert others["all"].mean == 0
    assert others["lights"].mean == 1
