"""Nothing of others is written or removed, whatever names and links a folder of posters holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_folders import done_job, events, job

import imax_dist
from imax_dist.errors import BadValue, CannotWrite
from imax_dist.events import Note
from imax_dist.events.log import append_to
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.store import Store
from imax_dist.output.atomic import write_json
from imax_dist.output.own_files import check_name, is_name, own_files, remove_files, require_real_folder
from imax_dist.output.web.page import write_page
from imax_dist.output.web.report import write_report
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.request import Request

HOSTILE = ["", ".", "..", "a/b", "../a", "/etc", "~", ".ssh", "-rf", "a\0b", "a\nb", "x" * 101,
           "batch.sqlite",
           "batch.lock", "index.html", "Events.JSONL", "_view", "CON ", "a\u0308", "\u0308a", "a\u202eb",
           "a\u200db",
           "a\uff0fb", "\ud800", "\u6d77" * 99, "a b", "a\u00a0b"]  # fmt: skip
SOUND = [
    "sea",
    "1",
    "A.b-c_d",
    "K\u00fcste",
    "\u6d77\u5cb8",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u00e9" * 100,
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Somebody's home, with names that a batch could hold as well."""
    for name in ("Documents/thesis.txt", "Documents/tiles/0/0_0.jpg", "thumb.jpg", "step-00001.safetensors",
                 "events.jsonl", "page.css"):  # fmt: skip
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("dear")
    return tmp_path / "home"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_plain_id_is_refused(name: str, tmp_path: Path) -> None:
    assert not is_name(name)
    for use in (check_name, lambda n: JobFolder.of(tmp_path, n), lambda n: make_job(Request("x"), name=n)):
        with pytest.raises(BadValue, match=r"cannot name a folder|file of the batch"):
            use(name)


@pytest.mark.parametrize("name", SOUND)
def test_letters_of_any_script_make_an_id(name: str, tmp_path: Path) -> None:
    assert is_name(name)
    folder = JobFolder.of(tmp_path, name)
    folder.open(make_job(Request("x"), name=name))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def plant_view(out: Path, home: Path) -> None:
    (out / "_view").symlink_to(home)


def plant_look(out: Path, home: Path) -> None:
    (out / "_view").mkdir()
    (out / "_view" / "Documents").symlink_to(home / "Documents")


def plant_tiles(out: Path, home: Path) -> None:
    (out / "_view" / "Documents").mkdir(parents=True)
    (out / "_view" / "Documents" / "tiles").symlink_to(home / "Documents" / "tiles")


def plant_level(out: Path, home: Path) -> None:
    (out / "_view" / "Documents" / "tiles").mkdir(parents=True)
    (out / "_view" / "Documents" / "tiles" / "0").symlink_to(home / "Documents" / "tiles" / "0")


def plant_tile(out: Path, home: Path) -> None:
    (out / "_view" / "Documents" / "tiles" / "0").mkdir(parents=True)
    tile = out / "_view" / "Documents" / "tiles" / "0" / "0_0.jpg"
    tile.symlink_to(home / "Documents" / "tiles" / "0" / "0_0.jpg")


def plant_page(out: Path, home: Path) -> None:
    (out / "index.html").symlink_to(home / "Documents" / "thesis.txt")


PLANTS = [plant_view, plant_look, plant_tiles, plant_level, plant_tile, plant_page]


@pytest.mark.parametrize("plant", PLANTS)
def test_view_follows_no_planted_link(
    plant: Callable[[Path, Path], None], home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done_job(out, "Documents", height=300, width=1700)
    plant(out, home)
    before = contents(home)
    try:
        said = write_page(out).problems
    except (BadValue, CannotWrite) as error:
        said = (str(error),)
    assert all(str(out) in text for text in said)  # a planted tile is replaced, not followed
    assert contents(home) == before


@pytest.mark.parametrize("name", [".", "..", "a b", "-x", "ü"])
def test_a_loose_poster_of_any_name_gets_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    """``...recipe.json`` is the recipe of a poster called ``..``: its tiles once replaced the folder."""
    out = tmp_path / "out"
    poster = done_job(out, "sea") / "poster.png"
    poster.rename(out / f"{name}.png")
    write_json(out / f"{name}.recipe.json", {"request": {"prompt": "x"}})
    for _ in range(2):
        write_page(out)
        (out / f"{name}.png").touch()
    assert (out / "sea" / "request.json").is_file()
    inside = {path.name for path in (out / "_view").iterdir() if path.is_dir()}
    assert all(is_name(entry) for entry in inside)
    assert len(inside) == 1


def test_a_folder_whose_name_no_job_has_is_named_and_left(tmp_path: Path) -> None:
    done_job(tmp_path, "sea")
    job(tmp_path, "..x")
    job(tmp_path / "elsewhere", "secret")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    made = write_page(tmp_path)
    assert made.posters == 1
    assert [("name that no poster" in text, "is a link" in text) for text in made.problems] == [
        (True, False),
        (False, True),
    ]


def test_drawing_anew_removes_only_what_was_drawn(tmp_path: Path) -> None:
    poster = done_job(tmp_path, "sea", height=300, width=1700) / "poster.png"
    write_page(tmp_path)
    kept = [
        tmp_path / "_view" / "sea" / name for name in ("notes.txt", "tiles/notes.txt", "tiles/0/notes.txt")
    ]
    for path in kept:
        path.write_text("mine")
    drawn = tmp_path / "_view" / "sea" / "tiles" / "0" / "0_0.jpg"
    os.utime(drawn, (0, 0))
    poster.touch()
    write_page(tmp_path)
    assert [path.read_text() for path in kept] == ["mine"] * 3
    assert drawn.stat().st_mtime > 0, "drawn anew; a file system may give the same inode again"


def test_a_page_of_others_is_kept(tmp_path: Path) -> None:
    done_job(tmp_path, "sea")
    for name in ("index.html", "report.html"):
        (tmp_path / name).write_text("<h1>my home page</h1>")
    with pytest.raises(CannotWrite, match=r"index\.html was not written by this program"):
        write_page(tmp_path)
    with pytest.raises(CannotWrite, match=r"report\.html was not written by this program"):
        write_report(tmp_path, tmp_path / "report.html")
    for name in ("index.html", "report.html"):
        (tmp_path / name).unlink()
    for _ in range(2):
        write_page(tmp_path)
        write_report(tmp_path, tmp_path / "report.html")


def test_checkpoints_behind_a_link_are_neither_written_nor_removed(home: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(home)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    before = contents(home)
    for act in (folder.remove, folder.files):
        with pytest.raises(BadValue, match="is a link"):
            act()
    assert contents(home) == before


def test_events_are_not_appended_through_a_link(home: Path, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to(home / "events.jsonl")
    with pytest.raises(OSError, match="symbolic link"):
        append_to(tmp_path / "events.jsonl")(Note("x"))
    assert (home / "events.jsonl").read_text() == "dear"


def test_a_store_behind_a_link_is_not_opened(home: Path, tmp_path: Path) -> None:
    (tmp_path / "batch.sqlite").symlink_to(home / "thumb.jpg")
    with pytest.raises(BadValue, match="is a link"):
        Store(tmp_path / "batch.sqlite")
    assert (home / "thumb.jpg").read_text() == "dear"


def test_only_regular_files_of_the_pattern_are_removed(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.tmp").write_text("x")
    (folder / "b.tmp").symlink_to(home / "thumb.jpg")
    (folder / "c.tmp").mkdir()
    assert own_files(folder, r"\w\.tmp") == [folder / "a.tmp"]
    remove_files(folder, r"\w\.tmp")
    assert sorted(path.name for path in folder.iterdir()) == ["b.tmp", "c.tmp"]
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(BadValue, match="is a link"):
        require_real_folder(tmp_path / "link")
    remove_files(tmp_path / "link", ".*")
    assert (home / "thumb.jpg").is_file()


def test_nothing_in_the_package_removes_a_tree() -> None:
    """``rmtree``, ``removedirs`` and the like take a composed path and all that others put below it."""
    banned = ("rmtree", "removedirs", "rmdir", "shutil.move")
    root = Path(imax_dist.__file__).parent
    found = {
        (path.name, word)
        for path in root.rglob("*.py")
        for word in banned
        if word in path.read_text(encoding="utf-8")
    }
    assert found == {("own_files.py", "rmdir")}


def test_a_recipe_and_events_behind_links_are_not_read(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = job(out, "sea")
    events(home / "secret.jsonl", {"s": 1, "event": "job.failed", "message": "secret"})
    (folder / "events.jsonl").symlink_to(home / "secret.jsonl")
    (folder / "poster.recipe.json").symlink_to(home / "secret.json")
    page = write_page(out).page.read_text()
    assert "secret" not in page
    assert json.loads((folder / "request.json").read_text())["id"] == "sea"
