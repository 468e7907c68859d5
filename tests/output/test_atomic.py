"""A file is whole or not there, and a failed write says why."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from disks import without_root_rights

from imax_dist.errors import CannotWrite, ImaxError, NoPermission
from imax_dist.output import atomic


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that everybody may read and nobody may write, below a folder everybody may enter."""
    with TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "locked"
        folder.mkdir()
        folder.chmod(0o555)
        yield folder


def test_a_written_file_has_its_content_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "poster.png", b"pixels")
    assert (tmp_path / "poster.png").read_bytes() == b"pixels"
    assert names(tmp_path) == ["poster.png"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a" / "b" / "poster.png", b"pixels")
    assert (tmp_path / "a" / "b" / "poster.png").read_bytes() == b"pixels"


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    target.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert target.read_text() == "old"

    atomic.write_file(target, write)
    assert target.read_text() == "new"
    assert names(tmp_path) == ["state.json"]


def test_the_writer_gets_a_path_in_the_same_folder_with_the_same_ending(tmp_path: Path) -> None:
    seen: list[Path] = []
    atomic.write_file(tmp_path / "poster.tif", seen.append)
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".tif"
    assert seen[0].name.startswith(".")


@pytest.mark.parametrize("failure", [ValueError("bad pixels"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_and_the_old_file_lives_when_the_writer_fails(
    tmp_path: Path, failure: BaseException
) -> None:
    target = tmp_path / "poster.png"
    target.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise failure

    with pytest.raises(type(failure)):
        atomic.write_file(target, write)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["poster.png"]


def test_json_is_readable_by_people_and_ends_with_a_line_break(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "recipe.json", {"prompt": "été", "steps": [1, 2]})
    text = (tmp_path / "recipe.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"prompt": "été", "steps": [1, 2]}
    assert "été" in text
    assert text.endswith("}\n")


def test_a_value_that_is_no_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        atomic.write_json(tmp_path / "recipe.json", {"path": tmp_path})
    assert names(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_file_gets_the_permissions_a_plain_write_would_give(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        atomic.write_bytes(tmp_path / "poster.png", b"pixels")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "poster.png").stat().st_mode & 0o777 == mode


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel itself answers `no space left` for every write to /dev/full."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        full.write_bytes(b"pixels")

    with pytest.raises(CannotWrite, match=r"poster.png cannot be written: the disk is full"):
        atomic.write_file(tmp_path / "poster.png", write)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, CannotWrite, "the disk is full; nothing was left behind"),
        (errno.EDQUOT, CannotWrite, "the disk is full"),
        (errno.EACCES, NoPermission, "no permission for out"),
        (errno.EPERM, NoPermission, "no permission for out"),
        (errno.EROFS, CannotWrite, "Read-only file system"),
        (errno.EIO, CannotWrite, "Input/output error"),
    ],
)
def test_each_system_error_has_its_class_and_sentence(
    number: int, kind: type[ImaxError], message: str
) -> None:
    error = atomic.write_error(Path("out/poster.png"), OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert f"out/poster.png cannot be written: {message}" in str(error)


def test_a_folder_without_permission_is_named(locked: Path) -> None:
    with (
        without_root_rights(),
        pytest.raises(NoPermission, match=r"poster.png cannot be written: no permission for .*locked"),
    ):
        atomic.write_bytes(locked / "poster.png", b"pixels")
    assert names(locked) == []


@pytest.mark.parametrize(
    "write", [lambda path: atomic.write_bytes(path, b""), lambda path: atomic.write_json(path, {})]
)
def test_a_path_under_a_file_cannot_be_written(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match=r"poster.png cannot be written"):
        write(tmp_path / "file" / "poster.png")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_target_that_is_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "poster.png").mkdir()
    with pytest.raises(CannotWrite, match=r"poster.png cannot be written"):
        atomic.write_bytes(tmp_path / "poster.png", b"pixels")
    assert names(tmp_path) == ["poster.png"]


def test_require_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    atomic.require_writable(tmp_path / "posters")
    assert names(tmp_path / "posters") == []


def test_require_writable_refuses_before_any_work(locked: Path) -> None:
    with without_root_rights(), pytest.raises(NoPermission, match=r"no permission for .*locked"):
        atomic.require_writable(locked)
    assert names(locked) == []
