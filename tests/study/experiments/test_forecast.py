"""What a run says of its length before it draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imax_dist.models.load import describe_model
from imax_dist.output.atomic import write_json
from imax_dist.output.image.png import read_pixels, write_plain_png
from imax_dist.study.experiments.cell import cells_of
from imax_dist.study.experiments.cost import planned_seconds
from imax_dist.study.experiments.draw import CellRenderer, ResultCache
from imax_dist.study.experiments.forecast import drawing_seconds, forecast
from imax_dist.study.experiments.settings import Study, load_study
from imax_dist.study.scenes import render


def test_the_true_render_is_a_variant_that_is_measured_and_costs_nothing(tmp_path: Path) -> None:
    spec, cache = describe_model("embedded"), ResultCache(tmp_path)
    variants = {"truth": {"enlarge": "truth"}, "enlarged": {"enlarge": "lanczos"}}
    study = Study("ceiling", variants, "truth", scenes={"2": 1}, guide="truth")
    true, enlarged = cells_of(study, "embedded", spec)
    renderer = CellRenderer(cache, ["facts", "placed"])
    keys = [renderer.make(cell) for cell in (true, enlarged)]
    renderer.close()
    said = [cache.read(key)["values"] for key in keys]
    assert (read_pixels(cache.picture(keys[0])) == render(true.scene, 512, 512)).all()
    assert said[0]["placed"] == pytest.approx(1.0)
    assert said[1]["placed"] < 0.9
    assert planned_seconds(true.variant, 2.0) is None
    cost = drawing_seconds([true, enlarged])
    assert cost[0] == 0.0 < cost[1]


def test_a_forecast_counts_every_picture_once_and_leaves_out_what_is_drawn(tmp_path: Path) -> None:
    spec, cache = describe_model("embedded"), ResultCache(tmp_path)
    study = replace(load_study("truth"), scenes={"2": 1, "4": 1})
    cells = cells_of(study, "embedded", spec)
    cost = dict(zip([(cell.name, cell.scale) for cell in cells], drawing_seconds(cells), strict=True))
    assert cost["one jump", 4.0] > 5 * cost["one jump", 2.0] > 10 * cost["enlarged (Lanczos)", 2.0]
    drawn = cells[0].key(spec)
    write_plain_png(cache.picture(drawn), np.zeros((16, 16, 3), np.uint8))
    write_json(cache.record(drawn), {"seconds": 1.0})
    found = forecast(cells + cells, cache)
    assert (found.pictures, found.there) == (12, 1)
    assert found.seconds == pytest.approx(sum(cost.values()) - cost[cells[0].name, cells[0].scale])
    told = replace(found, seconds=36_000.0).sentence(2)
    assert told == "12 pictures, 1 already drawn, about 5.0 h on 2 processes"
    assert "about" not in replace(found, there=12).sentence(2)
