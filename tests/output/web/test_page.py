"""The page's files: what they hold, and that nothing foreign gets into them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_folders import done_job, failed_job, job, native
from PIL import Image

from imax_dist.output.atomic import write_json
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.pyramid import write_pyramid
from imax_dist.output.web.batch_folder import read_folder
from imax_dist.output.web.page import write_page
from imax_dist.output.web.report import summarise, write_report


def entries(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    data = text.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    return {entry["id"]: entry for entry in json.loads(data)["posters"]}


@pytest.mark.parametrize("shape", [(1021, 777), (1020, 510), (511, 1533), (17, 33), (16, 16)])
def test_a_pyramid_has_the_layout_of_deep_zoom(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Every level halves the one above, rounded up; tiles put together are the level."""
    source = write_pyramid(tmp_path / "tiles", bands_of_array(ramp(*shape)))
    tmp_path = tmp_path / "tiles"
    levels = sorted(int(path.name) for path in tmp_path.iterdir())
    assert levels == list(range(int(np.ceil(np.log2(max(shape)))) + 1))
    assert source["Size"] == {"Width": shape[1], "Height": shape[0]}
    expected = ramp(*shape)
    for level in reversed(levels):
        columns = sorted({int(path.stem.split("_")[0]) for path in (tmp_path / str(level)).iterdir()})
        rows = sorted({int(path.stem.split("_")[1]) for path in (tmp_path / str(level)).iterdir()})
        joined = np.concatenate(
            [
                np.concatenate([tile(tmp_path / str(level), c, r, expected.shape) for c in columns], axis=1)
                for r in rows
            ]
        )
        assert joined.shape == expected.shape
        if min(expected.shape[:2]) > 64:  # below, JPEG's coarse colours are all there is
            assert abs(joined.astype(int) - expected).mean() < 3
        expected = halved(expected)


def halved(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Means of 2 x 2 pixels; an odd last row or column is its own pair."""
    height, width = rows.shape[:2]
    even = np.pad(rows, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    total = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def ramp(height: int, width: int) -> np.ndarray[Any, Any]:
    """Smooth in both directions, another in every channel: JPEG changes it little."""
    rows, columns = np.mgrid[:height, :width]
    unit = (rows / height + columns / width) / 2
    return np.rint(unit[..., None] * [250, 180, 90]).astype(np.uint8)


def tile(folder: Path, column: int, row: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A tile without its overlap of one pixel."""
    pixels = np.asarray(Image.open(folder / f"{column}_{row}.jpg"))
    left, top = min(column, 1), min(row, 1)
    width, height = min(510, shape[1] - 510 * column), min(510, shape[0] - 510 * row)
    return pixels[top : top + height, left : left + width]


def test_the_page_lists_every_poster_with_what_it_is(tmp_path: Path) -> None:
    native(done_job(tmp_path, "sea", seed=7))
    failed_job(tmp_path, "bad", "out of memory")
    job(tmp_path, "later")
    made = write_page(tmp_path)
    found = entries(made.page)
    assert (made.posters, made.problems) == (3, ())
    assert {name: entry["state"] for name, entry in found.items()} == {
        "sea": "done", "bad": "failed", "later": "queued",
    }  # fmt: skip
    assert (found["sea"]["seed"], found["sea"]["time"], found["bad"]["message"]) == (
        "7",
        "9.5 s",
        "out of memory",
    )
    assert [layer["label"] for layer in found["sea"]["layers"]] == [
        "extrapolated (imax)",
        "native (up-sampled)",
    ]
    assert "imax generate --recipe" in found["sea"]["command"]
    links = [found["sea"]["thumb"], *(layer["url"] for layer in found["sea"]["layers"])]
    assert all((tmp_path / link).is_file() for link in links)


def test_the_same_scene_by_another_preset_is_a_layer(tmp_path: Path) -> None:
    done_job(tmp_path, "a")
    done_job(tmp_path, "b", preset="direct")
    done_job(tmp_path, "c", preset="direct", seed=1)
    found = entries(write_page(tmp_path).page)
    assert [layer["label"] for layer in found["a"]["layers"]] == ["extrapolated (imax)", "direct"]
    assert len(found["c"]["layers"]) == 1


def test_a_prompt_cannot_end_the_script(tmp_path: Path) -> None:
    prompt = "</script><script>alert(1)</script><!-- 海"
    done_job(tmp_path, "sea", prompt=prompt)
    page = write_page(tmp_path).page
    assert "alert(1)</script>" not in page.read_text(encoding="utf-8")
    assert entries(page)["sea"]["prompt"] == prompt


def test_only_a_large_picture_is_cut_into_tiles(tmp_path: Path) -> None:
    done_job(tmp_path, "large", height=300, width=1700)
    done_job(tmp_path, "small")
    found = entries(write_page(tmp_path).page)
    assert found["large"]["layers"][0]["tiles"]["Size"] == {"Width": 1700, "Height": 300}
    assert "tiles" not in found["small"]["layers"][0]
    assert (tmp_path / found["large"]["thumb"]).is_file()


def test_tiles_of_an_unchanged_poster_are_kept(tmp_path: Path) -> None:
    folder = done_job(tmp_path, "sea")
    named: list[str] = []
    for _ in range(2):
        write_page(tmp_path, on_poster=named.append)
    assert named == ["sea"]
    os.utime(folder / "poster.png", (1, 1))
    write_page(tmp_path, on_poster=named.append)
    assert named == ["sea", "sea"]


def test_a_torn_picture_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    (done_job(tmp_path, "torn") / "poster.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    done_job(tmp_path, "whole")
    made = write_page(tmp_path)
    assert len(made.problems) == 1
    assert "torn" in made.problems[0]
    assert entries(made.page)["whole"]["layers"]

    assert "torn" in entries(made.page)["torn"]["message"]
    assert entries(made.page)["torn"]["thumb"] is None


def _recipe(value: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "poster.recipe.json").write_text(json.dumps(value))


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a recipe that is a list": _recipe([1, 2]),
    "a plan that is text": _recipe({"plan": "text", "request": [], "environment": 7}),
    "a size of many digits": _recipe({"plan": {"size": "9" * 5000 + "x1", "render_size": None}}),
    "DONE with text for seconds": lambda folder: _done(folder, seconds="soon"),
    "DONE with infinite seconds": lambda folder: _done(folder, seconds=float("inf")),
    "a request with NaN and half a character": lambda folder: _request(
        folder, prompt="\ud800 <script>", seed=float("nan"), dpi="many", paper=["A4"], preset={"a": 1}
    ),
    "a cut PNG": lambda folder: _cut(folder / "poster.png"),
    "a PNG of another kind": lambda folder: (folder / "poster.png").write_bytes(b"GIF89a"),
    "a JSON that never ends": lambda folder: (folder / "poster.recipe.json").write_text("[" * 100_000),
    "events of other types": lambda folder: (folder / "events.jsonl").write_text('{"event": 5}\n[]\n7\n'),
}  # fmt: skip


def _done(folder: Path, **changes: Any) -> None:
    (folder / "DONE").write_text(json.dumps({**json.loads((folder / "DONE").read_text()), **changes}))


def _request(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "request.json").read_text())
    (folder / "request.json").write_text(json.dumps({**record, "request": {**record["request"], **changes}}))


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("how", HOSTILE)
def test_a_bad_file_becomes_a_card_and_the_page_is_valid(tmp_path: Path, how: str) -> None:
    HOSTILE[how](done_job(tmp_path, "bad"))
    done_job(tmp_path, "good")
    for _ in range(2):
        made = write_page(tmp_path)
        write_report(tmp_path, tmp_path / "report.html")
        found = entries(made.page)
        assert sorted(found) == ["bad", "good"]
        assert found["good"]["layers"]
        assert found["bad"]["layers"] or found["bad"]["message"] or found["bad"]["state"] != "done"
        text = made.page.read_text(encoding="utf-8")
        assert "NaN" not in text.split('type="application/json">')[1].split("</script>")[0]


def test_presets_of_one_scene_are_layers_of_each_other(tmp_path: Path) -> None:
    for name, preset, seed in (("a", "imax", 1), ("b", "direct", 1), ("c", "direct", 2)):
        done_job(tmp_path, name, preset=preset, seed=seed)
    found = entries(write_page(tmp_path).page)
    assert {name: len(entry["layers"]) for name, entry in found.items()} == {"a": 2, "b": 2, "c": 1}


def test_recipes_are_linked_and_not_in_the_page(tmp_path: Path) -> None:
    done_job(tmp_path, "sea")
    page = write_page(tmp_path).page
    assert entries(page)["sea"]["recipe"] == "sea/poster.recipe.json"
    assert "imax-recipe/1" not in page.read_text()


def test_the_report_adds_up(tmp_path: Path) -> None:
    done_job(tmp_path, "sea")
    failed_job(tmp_path, "bad", "out of memory")
    summary = summarise(read_folder(tmp_path), wall_seconds=120)
    assert summary.states == {"done": 1, "failed": 1}
    assert summary.rank_hours == pytest.approx(100 / 3600)
    assert summary.lost_rank_hours == pytest.approx(90 / 3600)
    assert summary.retries == 1
    assert summary.step_median == {"extrapolated": 2.0}
    assert summary.megapixels == pytest.approx(0.06)


@pytest.mark.parametrize("key", ["environment", "surroundings"])
@pytest.mark.parametrize(
    ("device", "unit"), [("cpu (x86_64)", "rank-hours"), ("NVIDIA H100 80GB HBM3", "GPU-hours")]
)
def test_only_gpus_cost_gpu_hours(tmp_path: Path, device: str, unit: str, key: str) -> None:
    folder = done_job(tmp_path, "sea")
    recipe = json.loads((folder / "poster.recipe.json").read_text())
    write_json(folder / "poster.recipe.json", {**recipe, key: {"device": device}})
    assert write_report(tmp_path, tmp_path / "report.html").unit == unit
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("-hours") == text.count(unit) == 3


def test_the_report_says_what_failed_and_escapes_it(tmp_path: Path) -> None:
    done_job(tmp_path, "sea", prompt="<b>bold</b>")
    failed_job(tmp_path, "bad", "no <memory> left")
    write_report(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (
        "no &lt;memory&gt; left",
        "&lt;b&gt;bold",
        "rank 1 was killed",
        "Step times",
        "Retries",
        "<svg",
    ):
        assert part in text
    assert "<b>bold" not in text


def test_a_report_of_jobs_that_never_began_can_be_written(tmp_path: Path) -> None:
    job(tmp_path, "later")
    assert write_report(tmp_path, tmp_path / "report.html").states == {"queued": 1}
