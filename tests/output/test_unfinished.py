"""What a killed process left beside a poster goes; what a living one writes, and what is of others, stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from imax_dist.output.atomic import write_bytes, write_file, write_json
from imax_dist.output.own_files import remove_unfinished
from imax_dist.pipeline.checkpoint import CheckpointFolder

OTHERS = [
    ".sea-0123456789ab",
    ".sea-0123456789abc.png",
    ".sea-small-0123456789ab.png",
    ".seal-0123456789ab.png",
    "sea-0123456789ab.png",
    ".sea-0123456789AB.png",
]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def die_while_writing(path: Path) -> None:
    def write(temporary: Path) -> None:
        assert temporary.is_file()
        os.kill(os.getpid(), signal.SIGKILL)

    write_file(path, write)


@pytest.mark.parametrize("name", ["sea.png", "sea-print.pdf", "sea.recipe.json", "sea.native.png"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(tmp_path / name,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    remove_unfinished(tmp_path / "sea.png")
    assert names(tmp_path) == []


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        remove_unfinished(tmp_path / "sea.png")
        temporary.write_bytes(b"pixels")

    write_file(tmp_path / "sea.png", write)
    assert (tmp_path / "sea.png").read_bytes() == b"pixels"


def test_what_is_of_others_stays(tmp_path: Path) -> None:
    for name in OTHERS:
        (tmp_path / name).write_text("dear")
    (tmp_path / "there").write_text("dear")
    (tmp_path / ".sea-00000000000a.png").symlink_to(tmp_path / "there")
    (tmp_path / ".sea-00000000000b.png").mkdir()
    before = names(tmp_path)
    remove_unfinished(tmp_path / "sea.png")
    assert names(tmp_path) == before


def test_the_lock_ends_with_the_write(tmp_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        write_json(tmp_path / "sea.json", {"number": number})
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_half_written_checkpoint_goes_with_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "sea.checkpoints"
    write_bytes(folder / "step-100005.safetensors", b"whole")
    (folder / ".step-100010-0123456789ab.safetensors").write_bytes(b"half")
    CheckpointFolder(folder).remove()
    assert not folder.exists()
