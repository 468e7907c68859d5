"""A batch's folder is read from its files, whatever state it was left in."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_folders import STARTED, done_job, events, failed_job, gang, job, native
from pictures import png_poster

from imax_dist.errors import MissingInput
from imax_dist.output.atomic import write_json
from imax_dist.output.image.provenance import read_recipe
from imax_dist.output.web.batch_folder import Poster, read_folder


def only(out: Path) -> Poster:
    (poster,) = read_folder(out)
    return poster


def test_a_finished_job_has_its_picture_time_and_cost(tmp_path: Path) -> None:
    gang(tmp_path, ranks=4)
    native(done_job(tmp_path, "sea", seed=7))
    poster = only(tmp_path)
    assert (poster.id, poster.state, poster.size, poster.seconds) == ("sea", "done", "300x200", 9.5)
    assert poster.picture == tmp_path / "sea" / "poster.png"
    assert poster.native == tmp_path / "sea" / "native.png"
    assert poster.rank_seconds == pytest.approx(40.0)
    assert poster.step_seconds == {"extrapolated": [1.0, 3.0]}
    assert poster.stage_seconds == {"extrapolated": 4.0}


def test_a_failed_job_says_why_and_counts_what_it_cost(tmp_path: Path) -> None:
    failed_job(tmp_path, "sea", "CUDA out of memory")
    poster = only(tmp_path)
    assert (poster.state, poster.message, poster.picture) == ("failed", "CUDA out of memory", None)
    assert [(a.seconds, a.failure) for a in poster.attempts] == [
        (30.0, "rank 1 was killed"),
        (60.0, "CUDA out of memory"),
    ]


@pytest.mark.parametrize(
    ("line", "state"),
    [(None, "queued"), ({"s": 0, **STARTED}, "running"), ({"s": 0, "event": "job.cancelled"}, "cancelled")],
)
def test_a_job_without_a_poster_has_the_state_of_its_last_event(
    tmp_path: Path, line: dict[str, object] | None, state: str
) -> None:
    folder = job(tmp_path, "sea")
    if line:
        events(folder / "events.jsonl", line)
    assert only(tmp_path).state == state


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    folder = done_job(tmp_path, "sea")
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"ts": "2026-11-23T04:00:59Z", "event": "st')
    assert only(tmp_path).state == "done"


def test_posters_of_generate_are_found_too(tmp_path: Path) -> None:
    write_json(tmp_path / "sea.recipe.json", read_recipe(png_poster(tmp_path / "sea.png", seed=5)))
    poster = only(tmp_path)
    assert (poster.id, poster.state, poster.request["seed"]) == ("sea", "done", 5)


def test_a_folder_without_posters_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="holds no posters"):
        read_folder(tmp_path)
    with pytest.raises(MissingInput, match="is not a folder of posters"):
        read_folder(tmp_path / "nowhere")
