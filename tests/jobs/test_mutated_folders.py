"""Batch folders with random damage: every command says one sentence or works, and touches nothing outside.

Seeded and bounded (`fuzzing.py`).
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_folders import done_job, failed_job, gang, job, native
from fuzzing import CODES, JSON_VALUES, LONGEST_S, MOST_KIB, damaged, other_value, peak_kib, rounds
from pictures import png_poster

from imax_dist.cli.main import main
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.state import Cancelled, Done, Failed, Proofed, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request

COMMANDS: list[Callable[[Path], list[str]]] = [
    lambda out: ["status", str(out)],
    lambda out: ["status", str(out), "--json"],
    lambda out: ["view", str(out)],
    lambda out: ["report", str(out)],
    lambda out: ["verify", str(out / "sea" / "poster.png"), str(out / "moon" / "poster.png")],
    lambda out: ["finish", str(out / "sea" / "poster.png"), "--to", "pdf"],
    lambda out: ["retry", str(out)],
    lambda out: ["cancel", str(out), "hut"],
    lambda out: ["approve", str(out)],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of six posters in six states."""
    out = tmp_path_factory.mktemp("whole") / "batch"
    native(done_job(out, "sea", height=40, width=60))
    done_job(out, "moon", height=40, width=60, seed=3)
    failed_job(out, "storm", "rank 1 was killed")
    job(out, "hut")
    job(out, "tree")
    native(job(out, "boat"))
    gang(out, ranks=2)
    states = {
        "sea": Done("ab", 10, 1.5, 1),
        "moon": Done("cd", 10, 1.5, 2),
        "storm": Failed("died", "why", 3, retryable=True),
        "hut": Queued(5.0, attempts=1),
        "tree": Cancelled(1),
        "boat": Proofed(1),
    }
    jobs = [make_job(Request("a red sun"), name=name, position=k) for k, name in enumerate(states)]
    store = Store(store_path(out))
    store.add(zip(jobs, states.values(), strict=True))
    store.close()
    return out


def damage(out: Path, outside: Path, rng: random.Random) -> str:
    """One change to one file or folder; returns what was done."""
    paths = sorted(path for path in out.rglob("*"))
    path = rng.choice(paths)
    if path.is_symlink() or not path.exists():
        return "nothing"
    kinds = [vanish, become_link, become_folder] if path.is_dir() else [*FILE_DAMAGE]
    kind = rng.choice(kinds)
    kind(path, outside, rng)
    return f"{kind.__name__} {path.relative_to(out)}"


def vanish(path: Path, outside: Path, rng: random.Random) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def become_link(path: Path, outside: Path, rng: random.Random) -> None:
    vanish(path, outside, rng)
    path.symlink_to(outside if rng.random() < 0.5 else outside / "letter.txt")


def become_folder(path: Path, outside: Path, rng: random.Random) -> None:
    vanish(path, outside, rng)
    path.mkdir()


def other_bytes(path: Path, outside: Path, rng: random.Random) -> None:
    path.write_bytes(damaged(path.read_bytes(), rng))


def other_json(path: Path, outside: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(JSON_VALUES))


def other_type(path: Path, outside: Path, rng: random.Random) -> None:
    """A JSON object with one value of another type."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    path.write_text(other_value(text, rng))


def other_picture(path: Path, outside: Path, rng: random.Random) -> None:
    if path.suffix == ".png":
        png_poster(path, rng.randint(16, 90), rng.randint(16, 90))


FILE_DAMAGE = (
    vanish,
    become_link,
    become_folder,
    other_bytes,
    other_bytes,
    other_json,
    other_type,
    other_picture,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_no_damage_to_a_batch_folder_is_an_internal_error_or_reaches_outside(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    (outside / "sea").mkdir(parents=True)
    (outside / "letter.txt").write_text("dear")
    (outside / "sea" / "poster.png").write_bytes((whole / "sea" / "poster.png").read_bytes())
    dear, before, number = contents(outside), peak_kib(), 0
    for number, rng in rounds(150):
        out = tmp_path / "batch"
        shutil.copytree(whole, out, symlinks=True)
        kinds = [damage(out, outside, rng) for _ in range(rng.randint(1, 3))]
        command = rng.choice(COMMANDS)(out)
        started = time.monotonic()
        code = main(command)
        said = capsys.readouterr()
        where = f"mutation {number}: {kinds}, {command[0]}: {code}\n{said.err}"
        assert code in CODES, where
        assert "internal error" not in said.err, where
        assert "Traceback" not in said.err, where
        assert time.monotonic() - started < LONGEST_S, where
        assert peak_kib() - before < MOST_KIB, where
        assert contents(outside) == dear, where
        shutil.rmtree(out)
    print(f"{number + 1} folders, {(peak_kib() - before) >> 10} MiB")
