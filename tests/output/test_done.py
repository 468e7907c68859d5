"""A poster is the set of its files: each is accounted for, and nothing of an earlier poster is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from batch_folders import events

from imax_dist.cli.main import main
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.state import Done, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.output.done import read_done, stale_reason
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.poster import write_native, write_poster
from imax_dist.output.web.batch_folder import read_folder
from imax_dist.pipeline.recipe import FORMAT
from imax_dist.pipeline.request import Request

PRINTED = {"pdf": {}, "tif": {"bits": 16}, "png": {}}


def request(seed: int = 0, **output: object) -> Request:
    return Request("a red sun", size="64x48", seed=seed, output=output)  # type: ignore[arg-type]


def render(out: Path, job: Job, *, seed: int = 0) -> list[str]:
    """As a rank does, with noise for a picture; the files that were not of this program."""
    import torch

    folder = JobFolder.of(out, job.id)
    folder.open(job)
    pixels = np.random.default_rng(seed).random((48, 64, 3), dtype=np.float32)
    write_native(folder.path / "native.png", torch.from_numpy(pixels))
    asked = {"output": dict(job.request.output or {}), "dpi": None}
    recipe = {"format": FORMAT, "request": asked}
    told = write_poster(folder.poster, bands_of_array(pixels), recipe)
    names = ["poster.png", "poster.recipe.json", *told.get("files", {})]
    facts = {"pixels_sha256": told["pixels_sha256"], "seconds": 1.0}
    events(folder.events, {"s": 1, "event": "job.done"})
    return folder.finish(job.fingerprint, facts, names=names)[1]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"request.json", "events.jsonl", "DONE"}


@pytest.fixture
def old(tmp_path: Path) -> Job:
    """A finished poster with three print files in ``tmp_path``/sea, known to the store there."""
    job = make_job(request(**PRINTED), name="sea")
    store = Store(store_path(tmp_path))
    add_jobs(store, [job], tmp_path)
    render(tmp_path, job)
    add_jobs(store, [job], tmp_path)
    assert isinstance(store.rows()[0].state, Done)
    store.close()
    return job


def test_done_accounts_for_every_file(tmp_path: Path, old: Job) -> None:
    record = read_done(tmp_path / "sea")
    assert set(record["files"]) == names(tmp_path / "sea")
    assert set(record["files"]) == {
        "poster.png", "poster.recipe.json", "poster.pdf", "poster.tif", "poster-print.png", "native.png",
    }  # fmt: skip
    assert JobFolder.of(tmp_path, "sea").difference(old.fingerprint, read_all=True) == ""


def gone(path: Path) -> None:
    path.unlink()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def link(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [gone, torn, link, flipped])
@pytest.mark.parametrize(
    "name", ["poster.png", "poster.recipe.json", "poster.pdf", "poster.tif", "poster-print.png", "native.png"]
)
def test_every_damaged_file_is_found(
    tmp_path: Path, old: Job, name: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / "sea" / name)
    assert main(["status", str(tmp_path), "--verify"]) == 76
    assert f"sea: not the poster that was rendered: {name}" in capsys.readouterr().out
    if damage is not flipped:  # found without reading all
        store = Store(store_path(tmp_path))
        add_jobs(store, [old], tmp_path)
        state = store.rows()[0].state
        assert isinstance(state, Queued)
        assert name in state.after


def test_files_of_an_earlier_request_are_neither_shown_nor_verified(tmp_path: Path, old: Job) -> None:
    changed = make_job(request(seed=1), name="sea")
    JobFolder.of(tmp_path, "sea").open(changed)
    assert old.fingerprint != changed.fingerprint
    for name in ("poster.png", "poster.pdf", "poster.tif"):
        assert stale_reason(tmp_path / "sea" / name) == "it was made for an earlier request"
        assert main(["verify", str(tmp_path / "sea" / name)]) == 65
    (poster,) = read_folder(tmp_path)
    assert (poster.picture, poster.files, poster.native) == (None, (), None)


def test_a_new_poster_leaves_nothing_of_the_old_one(tmp_path: Path, old: Job) -> None:
    changed = make_job(request(seed=1, jpg={}), name="sea")
    assert render(tmp_path, changed, seed=1) == []
    assert names(tmp_path / "sea") == {"poster.png", "poster.recipe.json", "poster.jpg", "native.png"}
    (poster,) = read_folder(tmp_path)
    assert [path.name for path in poster.files] == ["poster.png", "poster.jpg"]
    for path in poster.files:
        assert main(["verify", str(path)]) == 0


def test_a_crash_between_print_files_leaves_nothing_of_either(tmp_path: Path, old: Job) -> None:
    """The changed request wrote a JPEG and was killed; then the line changed once more."""
    import os

    render(tmp_path, make_job(request(seed=1, jpg={}), name="sea"), seed=1)
    (tmp_path / "sea" / "DONE").unlink()
    (tmp_path / "sea" / f".poster-{os.urandom(6).hex()}.png").write_bytes(b"half")
    (tmp_path / "sea" / f".DONE-{os.urandom(6).hex()}").write_bytes(b"half")
    render(tmp_path, make_job(request(seed=2), name="sea"), seed=2)
    assert names(tmp_path / "sea") == {"poster.png", "poster.recipe.json", "native.png"}


def test_files_of_others_are_named_and_kept(tmp_path: Path, old: Job) -> None:
    (tmp_path / "sea" / "poster.jpg").write_bytes(b"\xff\xd8 my own")
    (tmp_path / "sea" / "notes.txt").write_text("mine")
    (tmp_path / "sea" / "poster.tiff").symlink_to(tmp_path / "sea" / "notes.txt")
    assert render(tmp_path, make_job(request(seed=1), name="sea"), seed=1) == ["poster.jpg"]
    assert {"poster.jpg", "notes.txt", "poster.tiff"} <= names(tmp_path / "sea")


def test_what_was_finished_by_hand_from_this_very_poster_is_kept(tmp_path: Path, old: Job) -> None:
    folder = tmp_path / "sea"
    assert main(["finish", str(folder / "poster.png"), "--to", "jpg"]) == 0
    made = next(path for path in folder.iterdir() if path.suffix == ".jpg")
    assert main(["verify", str(made)]) == 0
    render(tmp_path, old)
    assert made.is_file()


def test_a_done_of_before_files_were_listed_still_counts(tmp_path: Path, old: Job) -> None:
    path = tmp_path / "sea" / "DONE"
    record = {name: value for name, value in json.loads(path.read_text()).items() if name != "files"}
    path.write_text(json.dumps(record))
    assert JobFolder.of(tmp_path, "sea").finished(old.fingerprint, read_all=True) is not None
    assert main(["verify", str(tmp_path / "sea" / "poster.pdf")]) == 0


@pytest.mark.parametrize(
    "files", [["poster.png"], {"../x": {}}, {"poster.png": 3}, {"/etc/passwd": {"bytes": 1}}]
)
def test_a_done_that_names_what_no_poster_has_is_no_done(tmp_path: Path, old: Job, files: object) -> None:
    path = tmp_path / "sea" / "DONE"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))
    assert read_done(tmp_path / "sea") == {}
    assert JobFolder.of(tmp_path, "sea").finished(old.fingerprint) is None
