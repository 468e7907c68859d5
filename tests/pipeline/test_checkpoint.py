"""A checkpoint is whole or not there, and only this program's own of the same poster is gone on from."""

from __future__ import annotations

import math
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from imax_dist.errors import BadManifest, CannotWrite, MissingInput
from imax_dist.pipeline.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointFolder,
    Resume,
    content_hash,
    read_checkpoint,
)
from imax_dist.pipeline.state import PassState

POSTER = "a" * 64
OTHER_POSTER = "b" * 64


def checkpoint(step: int, phase: Any = "extrapolated", **changes: Any) -> Checkpoint:
    tensors = {"latents": torch.full((1, 16, 4, 4), float(step)), "reference": torch.ones(1, 16, 4, 4)}
    number = 0 if phase == "native" else 1
    state = PassState.from_tensors(number, step, changes.get("tensors", tensors))
    return Checkpoint(state, changes.get("fingerprint", POSTER), seed=7)


def folder_with(path: Path, *steps: int, resume: Resume = "auto") -> CheckpointFolder:
    folder = CheckpointFolder(path, resume=resume)
    for step in steps:
        folder.save(checkpoint(step))
    return folder


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    saved = checkpoint(3)
    path = CheckpointFolder(tmp_path).save(saved)
    found = read_checkpoint(path, POSTER)
    assert (found.state.number, found.state.step, found.seed, found.fingerprint) == (1, 3, 7, POSTER)
    before, after = saved.state.to_tensors(), found.state.to_tensors()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_keep_their_precision_and_views_are_stored_whole(tmp_path: Path, dtype: torch.dtype) -> None:
    view = torch.randn(1, 4, 6, 16).to(dtype).permute(0, 3, 1, 2)
    path = CheckpointFolder(tmp_path).save(checkpoint(1, tensors={"latents": view}))
    found = read_checkpoint(path, POSTER).state.latents
    assert found.dtype == dtype
    assert torch.equal(found, view)


@pytest.mark.parametrize(
    ("every", "due"), [(5, [5, 10]), (1, list(range(1, 12))), (0, []), (20, []), (12, [])]
)
def test_checkpoints_are_due_every_so_many_steps_but_not_at_the_end(
    tmp_path: Path, every: int, due: list[int]
) -> None:
    folder = CheckpointFolder(tmp_path, every=every)
    assert [step for step in range(1, 13) if folder.due(step, 12)] == due


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(checkpoint(8, "native"))
    folder.save(checkpoint(9, "native"))
    folder.save(checkpoint(2, "extrapolated"))
    assert names(tmp_path) == ["step-000009.safetensors", "step-100002.safetensors"]
    folder.save(checkpoint(10, "extrapolated"))
    assert names(tmp_path) == ["step-100002.safetensors", "step-100010.safetensors"]


def test_the_newest_usable_one_is_found(tmp_path: Path) -> None:
    found, passed_over = folder_with(tmp_path, 2, 10).find(POSTER)
    assert found is not None
    assert (found.state.step, passed_over) == (10, [])


def test_nothing_there_is_nothing_found(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").find(POSTER) == (None, [])


class Payload:
    """Leaves a trace where a pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def tear_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_program(path: Path) -> None:
    save_file({"latents": torch.zeros(1, 16, 4, 4)}, path)


def other_version(path: Path) -> None:
    metadata = {
        "format": "imax-checkpoint/1",
        "fingerprint": POSTER,
        "phase": "native",
        "step": "1",
        "seed": "0",
    }
    save_file({"latents": torch.zeros(1, 16, 4, 4)}, path, metadata=metadata)


def other_poster(path: Path) -> None:
    rewrite(path, fingerprint=OTHER_POSTER)


def not_finite(path: Path) -> None:
    rewrite(path, tensors={"latents": torch.tensor([[[[1.0, math.nan]]]])})


def no_latents(path: Path) -> None:
    words = {
        "format": FORMAT,
        "fingerprint": POSTER,
        "phase": "native",
        "seed": "0",
        "step": "1",
        "pass": "0",
    }
    save_file({"reference": torch.ones(1, 1, 1, 1)}, path, metadata=words)


def no_step(path: Path) -> None:
    with_words(path, {"format": FORMAT, "fingerprint": POSTER, "phase": "native", "seed": "0"})


def step_not_a_number(path: Path) -> None:
    with_words(path, {"format": FORMAT, "fingerprint": POSTER, "phase": "native", "seed": "0", "step": "x"})


def no_hash(path: Path) -> None:
    words = {"format": FORMAT, "fingerprint": POSTER, "phase": "native", "seed": "0", "step": "9"}
    save_file({"latents": torch.zeros(1, 16, 4, 4)}, path, metadata=words)


def with_words(path: Path, words: dict[str, str]) -> None:
    """A file with these words and the hash that belongs to them."""
    tensors = {"latents": torch.zeros(1, 16, 4, 4)}
    save_file(tensors, path, metadata={**words, "sha256": content_hash(words, tensors)})


def flipped_bit(path: Path) -> None:
    """The lowest bit of the last number: it stays finite, and almost the same."""
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


def other_step(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'"step":"9"') == 1
    path.write_bytes(content.replace(b'"step":"9"', b'"step":"8"'))


def other_shape(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"[1,16,4,4]", b"[1,4,16,4]", 1))


def absurdly_large(path: Path) -> None:
    """A sparse file: a terabyte that takes no room."""
    os.truncate(path, 1 << 40)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.with_name("loaded"))))


def a_torch_file(path: Path) -> None:
    torch.save({"latents": Payload(path.with_name("loaded"))}, path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rewrite(path: Path, **changes: Any) -> None:
    """Put a checkpoint with these changes in the place of ``path``."""
    made = CheckpointFolder(path.parent / "elsewhere").save(checkpoint(9, **changes))
    made.replace(path)
    made.parent.rmdir()


UNUSABLE: list[tuple[Callable[[Path], None], str]] = [
    (tear, r"cannot be read as a checkpoint"),
    (tear_header, r"cannot be read as a checkpoint"),
    (empty, r"cannot be read as a checkpoint"),
    (other_program, r"is not a checkpoint of this program \(imax-checkpoint/3\)"),
    (other_version, r"is not a checkpoint of this program \(imax-checkpoint/3\)"),
    (other_poster, r"belongs to another poster or other settings; use --resume never to start over"),
    (not_finite, r"cannot be used: it holds numbers that are not finite"),
    (no_latents, r"cannot be read as a checkpoint: its pass or its tensors are not known"),
    (no_step, r"cannot be read as a checkpoint: 'step'"),
    (no_hash, r"cannot be read as a checkpoint: 'sha256'"),
    (step_not_a_number, r"cannot be read as a checkpoint: invalid literal"),
    (flipped_bit, r"cannot be used: its hash is not that of its content; it was damaged"),
    (other_step, r"cannot be used: its hash is not that of its content; it was damaged"),
    (other_shape, r"cannot be used: its hash is not that of its content; it was damaged"),
    (absurdly_large, r"cannot be used: it is larger than any checkpoint of this program"),
    (a_pickle, r"cannot be read as a checkpoint"),
    (a_torch_file, r"cannot be read as a checkpoint"),
    (a_folder, r"cannot be read as a checkpoint"),
]
DAMAGES = pytest.mark.parametrize(("damage", "message"), UNUSABLE, ids=[do.__name__ for do, _ in UNUSABLE])


@DAMAGES
def test_an_unusable_file_is_named_with_its_reason(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = CheckpointFolder(tmp_path).save(checkpoint(9))
    damage(path)
    with pytest.raises(BadManifest, match=rf"step-100009.safetensors {message}"):
        read_checkpoint(path, POSTER)
    assert not (tmp_path / "loaded").exists()


@DAMAGES
def test_auto_passes_over_an_unusable_file_and_takes_the_older_one(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = folder_with(tmp_path, 4, 9)
    damage(tmp_path / "step-100009.safetensors")
    found, passed_over = folder.find(POSTER)
    assert found is not None
    assert found.state.step == 4
    assert len(passed_over) == 1
    assert "step-100009.safetensors" in passed_over[0]


def test_auto_starts_over_when_none_can_be_used(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 4, 9)
    found, passed_over = folder.find(OTHER_POSTER)
    assert found is None
    assert len(passed_over) == 2


def test_never_does_not_look(tmp_path: Path) -> None:
    assert folder_with(tmp_path, 4, resume="never").find(POSTER) == (None, [])


def test_must_takes_a_good_one_and_falls_back_like_auto(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 4, 9, resume="must")
    tear(tmp_path / "step-100009.safetensors")
    found, _ = folder.find(POSTER)
    assert found is not None
    assert found.state.step == 4


def test_must_without_a_checkpoint_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"--resume must: there is no checkpoint in .*; use --resume auto"):
        folder_with(tmp_path, resume="must").find(POSTER)


def test_must_with_only_unusable_ones_says_why(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 4, resume="must")
    with pytest.raises(BadManifest, match=r"--resume must: .*belongs to another poster"):
        folder.find(OTHER_POSTER)


def test_files_of_others_are_neither_read_nor_removed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 4)
    for name in ("notes.txt", "step-last.safetensors", ".step-100004-abc.safetensors"):
        (tmp_path / name).write_text("mine")
    assert [path.name for path in folder.files()] == ["step-100004.safetensors"]
    folder.remove()
    assert names(tmp_path) == [".step-100004-abc.safetensors", "notes.txt", "step-last.safetensors"]


def test_a_finished_poster_leaves_no_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "sea.checkpoints", 4, 9)
    folder.remove()
    assert names(tmp_path) == []
    folder.remove()


def test_a_checkpoint_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = CheckpointFolder(tmp_path).save(checkpoint(9))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_disk_without_room_leaves_the_older_checkpoint_and_no_half_file(tmp_path: Path) -> None:
    """The kernel itself refuses to let the file grow."""
    folder = folder_with(tmp_path, 4)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, unlimited[1]))
    try:
        with pytest.raises(CannotWrite, match=r"step-100009.safetensors cannot be written: .*too large"):
            folder.save(checkpoint(9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert names(tmp_path) == ["step-100004.safetensors"]
