"""Studies end to end in their smallest form, their statistics, and what they refuse."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import lives
from tiny_flux import TRAINED_FLUX

from imax_dist.cli.main import main
from imax_dist.config import config_folder
from imax_dist.errors import BadConfig, BadValue, GangLost
from imax_dist.models.find import EMBEDDED
from imax_dist.models.load import describe_model
from imax_dist.output.image.png import read_pixels
from imax_dist.settings_mapping import from_mapping
from imax_dist.study.experiments.cell import Cell, cells_of, native_for
from imax_dist.study.experiments.cost import planned_seconds
from imax_dist.study.experiments.draw import CellRenderer, ResultCache
from imax_dist.study.experiments.judge import judge
from imax_dist.study.experiments.measures import ALL, MEASURES, Sample, measurable, of_testbed, read_all
from imax_dist.study.experiments.pareto import pareto_front
from imax_dist.study.experiments.plots import draw
from imax_dist.study.experiments.settings import Sheet, Study, load_study, study_names
from imax_dist.study.experiments.sheets import write_sheets
from imax_dist.study.experiments.statistics import compare, compare_sets, verdict
from imax_dist.study.experiments.workers import Drawing, draw_all, prepare_worker
from imax_dist.study.metrics.interval import Interval
from imax_dist.study.scenes import render, sample_scene

TINY = """# A study of two steps
title: Tiny
baseline: imax
vote: true
scenes: {2: 2}
variants:
  imax: {steps: 2, native_steps: 2}
  direct: {preset: direct, steps: 2}
  enlarged: {enlarge: lanczos, native_steps: 2}
"""
MODEL = ["--model", str(TRAINED_FLUX)]
FORK = multiprocessing.get_context("fork")


@pytest.mark.slow
def test_a_study_draws_measures_reports_and_draws_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    command = ["study", "run", str(tmp_path / "tiny.yaml"), *MODEL, "--out", str(out), "-q"]
    assert main([*command, "--processes", "2"]) == 0
    assert "| **imax** |" in capsys.readouterr().out
    found = json.loads((out / "results.json").read_text())
    told = found["sizes"]["2x 256x256"]
    assert told["n"] == 2
    assert told["preference"]["judge"].startswith("testbed")
    assert {"facts", "layout", "spectrum", "seconds"} <= set(told["variants"]["direct"])
    assert told["variants"]["enlarged"]["layout"]["verdict"] == "better"
    assert {"table.md", "plot.png", "plot.svg", "sheet-2x-256x256.png"} <= {p.name for p in out.iterdir()}
    assert Image.open(out / "sheet-2x-256x256.png").width == 4 * 260 - 4
    the_sheets_say_what_they_show(found, ResultCache(tmp_path / "cache"), tmp_path / "page")
    cache = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")} == cache
    again = json.loads((out / "results.json").read_text())
    assert again == found
    capsys.readouterr()
    assert main(["study", "guidance", *MODEL, "--out", str(out), "-q"]) == 64
    assert "holds the results of study tiny" in capsys.readouterr().err


def the_sheets_say_what_they_show(found: dict[str, Any], cache: ResultCache, folder: Path) -> None:
    """One variant in a square; and rows of the whole picture, made small, over a part of it at 1:1."""
    write_sheets(folder, found, cache, Sheet(variants=("imax",), truth=False, scenes=2), widest=1000)
    assert Image.open(folder / "sheet-2x-256x256.jpg").size == (2 * 260 - 4, 256)
    parts = Sheet(variants=("direct", "imax"), scenes=1, parts=((0.5, 0.9),))
    write_sheets(folder, found, cache, parts, widest=296)
    sheet = np.asarray(Image.open(folder / "sheet-2x-256x256.jpg"), np.int16)
    assert sheet.shape[1] == 296
    assert sheet.shape[0] > 2 * 96 + 4
    keys = [cell["key"] for cell in found["cells"] if cell["variant"] == "imax" and cell["scene"] == 0]
    shown = read_pixels(cache.picture(keys[0]))[160:, 128:224]
    assert np.abs(sheet[-96:, -96:] - shown).mean() < 8
    assert write_sheets(folder, found, cache, Sheet(scales=(4.0,))) == []


@pytest.mark.slow
def test_the_velocity_loss_is_higher_above_native_size(tmp_path: Path) -> None:
    out = tmp_path / "loss"
    assert main(["study", "velocity-loss", *MODEL, "--small", "--out", str(out), "-q"]) == 0
    sizes = json.loads((out / "results.json").read_text())["sizes"]
    ratio = [told["ratio"] for told in sizes["2x 256x256"]["variants"]["direct"].values() if "ratio" in told]
    assert len(ratio) == 9
    assert np.mean(ratio) > 1


def test_a_measure_that_a_size_lacks_leaves_an_empty_panel_and_no_axis() -> None:
    """As Frechet distances of recipes at 8x, of two scenes."""

    def stats(mean: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean, "high": mean, "n": 8, "verdict": "even"}

    one, other = ({"edges": stats(k), "frechet": stats(1 - k), "planned": stats(9.0)} for k in (0.5, 0.7))
    less = {name: value for name, value in one.items() if name != "frechet"}
    study = {"kind": "pictures", "plot": "pareto", "variants": {"a": {}, "b": {}}, "guide": "truth"}
    sizes = {
        "4x 8x8": {"n": 8, "variants": {"a": one, "b": other}},
        "8x 9x9": {"n": 2, "variants": {"a": less, "b": less}},
    }
    found = {"baseline": "a", "settings": {**study, "shown": ["edges", "frechet", "planned"]}, "sizes": sizes}
    panels = draw(found).axes
    assert [panel.axison for panel in panels] == [True, True, True, False]
    assert panels[-1].texts[0].get_text() == "not measured"


def test_every_study_that_ships_plans_every_picture() -> None:
    spec = describe_model("embedded")
    for name in study_names():
        for cell in cells_of(load_study(name).shortened(), "embedded", spec):
            assert len(cell.key(spec)) == 64, name


def test_the_list_names_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == study_names()
    assert main(["study"]) == 64


def test_a_shortened_study_says_what_it_leaves_out() -> None:
    study = load_study("presets")
    assert study.shortened().trial.startswith("a trial: 2 scenes, 4 of 8 variants")
    assert not study.trial


@pytest.mark.slow
def test_a_killed_process_of_a_study_is_named_with_a_remedy(tmp_path: Path) -> None:
    spec = describe_model("embedded")
    cells = cells_of(load_study("presets").with_scenes(1), "embedded", spec)[:2]
    with pytest.raises(GangLost, match="one of the study's 2 processes was killed"):
        draw_all(cells, Suicidal(ResultCache(tmp_path), (), True, "cpu"), processes=2, on_progress=silent)


class Suicidal(Drawing):
    """A process that ends as the kernel ends one that takes too much memory."""

    def renderer(self) -> CellRenderer:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().renderer()


def test_the_processes_of_a_study_that_was_killed_leave_with_it() -> None:
    """They held a gigabyte each for ever."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    study = FORK.Process(target=start_worker, args=(writer,))
    study.start()
    assert reader.poll(30)
    worker = reader.recv()
    assert lives(worker)
    study.kill()
    study.join()
    deadline = time.monotonic() + 10
    while lives(worker):
        assert time.monotonic() < deadline, "a process outlived its study"
        time.sleep(0.05)


def start_worker(writer: Connection) -> None:
    worker = FORK.Process(target=idle)
    worker.start()
    writer.send(worker.pid)
    time.sleep(60)


def idle() -> None:
    """A process of the pool that waits for work."""
    prepare_worker()
    time.sleep(60)


def silent(done: int, total: int) -> None:
    pass


def test_the_front_keeps_what_no_cheaper_recipe_is_as_good_as() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (4.0, 0.9)]
    assert pareto_front(points, "facts") == [(1.0, 0.5), (3.0, 0.9)]
    assert pareto_front(points, "frechet") == [(1.0, 0.5), (2.0, 0.4)]
    assert pareto_front([(1.0, -0.5), (2.0, 0.4), (3.0, -0.6)], "spectrum") == [(1.0, -0.5), (2.0, 0.4)]


def test_what_a_recipe_would_cost_on_a_gpu_follows_its_steps_and_sizes() -> None:
    recipes = load_study("recipes").parsed_variants
    jump, doubling, quick, enlarged, ceiling = (
        planned_seconds(recipes[name], 4.0)
        for name in (
            "one jump from noise",
            "doubling from 0.6",
            "fast",
            "enlarged (Lanczos)",
            "autoencoder ceiling",
        )
    )
    assert ceiling is None
    assert jump is not None
    assert doubling is not None
    assert quick is not None
    assert enlarged is not None
    assert 200 < jump < 240  # one H100 took 220 s (BENCHMARKS.md)
    assert enlarged < quick < doubling < 75


def test_variants_share_native_pictures_and_scenes_but_not_targets() -> None:
    spec = describe_model("embedded")
    cells = cells_of(load_study("presets").with_scenes(2), "embedded", spec)
    one = [cell for cell in cells if cell.number == 1 and cell.scale == 2]
    drawn = {cell.name: cell for cell in one}
    assert (
        drawn["imax"].native_key(spec) == drawn["paper"].native_key(spec) == drawn["direct"].native_key(spec)
    )
    assert drawn["official"].native_key(spec) != drawn["imax"].native_key(spec)
    assert len({cell.key(spec) for cell in one}) == len(one)
    assert {cell.request().seed for cell in one} == {1}


def test_aspect_ratios_are_whole_tokens_of_about_the_native_area() -> None:
    spec = describe_model("embedded")
    for aspect in ("1:1", "2:1", "1:2", "4:1", "16:9"):
        size = native_for(aspect, spec)
        assert size.width % 16 == size.height % 16 == 0
        assert abs(size.area / spec.settings.native_side**2 - 1) < 0.1
    with pytest.raises(BadValue, match="is not W:H"):
        native_for("wide", spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "x"}, "baseline 'x' is not a variant"),
        ({"sheet": {"variants": ["x"]}}, "sheet: 'x' is not a variant"),
        ({"sheet": {"scales": [2, 8]}}, "sheet: scales: 8 is not a scale of this study; choose 2, 4"),
        ({"sheet": {"scenes": 0}}, "sheet: scenes 0 and widest 1100 must be 1 or more"),
        ({"sheet": {"parts": [[0.5, 1.0]]}}, "must be two shares of the sides"),
        ({"scenes": {"1.5": 3}}, "is not SCALE: COUNT"),
        ({"scenes": {"2": 0}}, "is not SCALE: COUNT"),
        ({"variants": {"imax": {"setting": []}}}, "unknown key 'setting'"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    whole = {"title": "t", "paper": "p", "baseline": "imax", "variants": {"imax": {}}, **change}
    with pytest.raises(BadConfig, match=message):
        _ = from_mapping(Study, whole, where="study").parsed_variants


def test_models_that_draw_no_scenes_keep_the_measures_that_need_none(tmp_path: Path) -> None:
    held, refused = measurable(testbed=False, guide="native")
    assert {"layout", "energy", "grid", "seam", "speckle", "seconds"} == set(held)
    assert {"facts", "repeats", "spectrum", "frechet"} <= set(refused)
    assert of_testbed("embedded")
    assert "edges" in measurable(testbed=True, guide="truth")[0]
    assert "edges" not in measurable(testbed=True, guide="native")[0]


def test_the_true_render_is_perfect_by_every_measure() -> None:
    scene = sample_scene(3)
    truth, native = render(scene, 256, 256), render(scene, 128, 128)
    values = read_all(Sample(truth, native, 2.0, scene, truth), list(MEASURES))
    assert values["facts"] == values["edges"] == 1.0
    assert values["placed"] == pytest.approx(1.0)
    assert values["spectrum"] == values["repeats"] == 0.0
    assert values["speckle"] < 0.1


def test_the_judge_counts_criteria_and_ties_within_tolerance() -> None:
    good = {"facts": 1.0, "layout": 30.0, "spectrum gap": 0.4}
    assert judge(good, {**good, "facts": 0.8})[0] == 1.0
    assert judge({**good, "layout": 20.0}, good)[0] == 0.0
    assert judge(good, {**good, "facts": 0.98, "layout": 30.5})[0] == 0.5
    assert judge(good, {**good, "facts": 0.8, "layout": 35.0}) == (
        0.5,
        ["facts 1 against 0.8", "layout 30 against 35"],
    )


def test_paired_differences_are_sharper_than_the_means() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.normal(10, 3, 24)
    told = compare({"base": scenes.tolist(), "more": (scenes + 1 + rng.normal(0, 0.1, 24)).tolist()}, "base")
    assert told["base"].difference is None
    assert told["more"].value.low < told["base"].value.high
    assert verdict("layout", told["more"].difference) == "better"
    assert verdict("speckle", told["more"].difference) == "worse"
    assert verdict("spectrum", told["more"].difference) == "even"
    assert verdict("layout", Interval(1.0, -0.1, 2.0, 24)) == "even"


def test_a_set_that_is_the_truth_has_distance_zero_and_another_has_more() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(6, 16, 8))
    told = compare_sets({"same": truth, "other": truth + 1.0}, truth, "same")
    assert told["same"].value.mean == pytest.approx(0.0, abs=1e-6)
    assert told["other"].value.mean == pytest.approx(8.0, abs=0.1)
    assert verdict("frechet", told["other"].difference) == "worse"


def test_every_measure_says_what_it_is() -> None:
    assert all(measure.text and measure.better in ("high", "low", "zero") for measure in ALL.values())


def test_a_cell_with_a_true_guide_is_another_picture() -> None:
    spec = describe_model("embedded")
    (cell, *_) = cells_of(load_study("presets").with_scenes(1), "embedded", spec)
    guided = Cell(**{**vars(cell), "guide": "truth"})
    assert guided.native_key(spec) != cell.native_key(spec)
    assert guided.key(spec) != cell.key(spec)


def test_a_model_with_other_words_is_not_of_the_testbed(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED / "tokenizer_2", tmp_path / "tokenizer_2")
    (tmp_path / "transformer").mkdir()
    shutil.copy(EMBEDDED / "transformer" / "config.json", tmp_path / "transformer")
    (tmp_path / "imax.yaml").write_text((config_folder() / "models" / "embedded.yaml").read_text())
    assert of_testbed(str(tmp_path))
    path = tmp_path / "tokenizer_2" / "tokenizer.json"
    path.write_text(path.read_text().replace("\\u2581meadow", "\\u2581lawn").replace("▁meadow", "▁lawn"))
    assert not of_testbed(str(tmp_path))


@pytest.mark.slow
def test_a_model_that_draws_no_scenes_is_measured_without_them_and_told_which_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imax_dist.study.experiments.run.of_testbed", lambda _: False)
    text = TINY.replace("steps: 2", "steps: 1").replace("vote: true", "vote: false")
    (tmp_path / "tiny.yaml").write_text(text)
    command = ["study", "run", str(tmp_path / "tiny.yaml"), *MODEL, "--n", "1", "-q", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(told["sizes"]["2x 256x256"]["variants"]["imax"]) == {
        "layout",
        "energy",
        "grid",
        "seam",
        "speckle",
        "seconds",
    }
    assert "does not draw scenes: facts, repeats" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "truth"), "--guide", "truth"]) == 64
    assert "was not trained to draw" in capsys.readouterr().err


def test_a_network_of_the_user_s_that_is_not_there_is_refused(tmp_path: Path) -> None:
    command = ["study", "super-resolution", "--out", str(tmp_path), "--upscaler"]
    assert main([*command, str(tmp_path / "none.safetensors")]) == 66
    assert main([*command, "net.pth"]) == 64
