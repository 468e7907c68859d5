"""A rank is killed at any moment of writing a poster: what is left is no poster, the next run's is whole.

The kill is real: a child process ends without a word, before or after one of its files comes into place.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.reconcile import state_of
from imax_dist.jobs.state import Done, Queued
from imax_dist.output.image.bands import bands_of_array
from imax_dist.output.image.png import write_png
from imax_dist.output.image.poster import write_poster
from imax_dist.pipeline.recipe import FORMAT
from imax_dist.pipeline.request import Request

PRINTED: dict[str, Any] = {"pdf": {}, "tif": {"bits": 16}}
KILLED = 9
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["imax_dist.jobs.reconcile", "imax_dist.output.image.poster", "numpy"])


def job_of(seed: int) -> Job:
    return make_job(Request("a red sun", size="64x48", seed=seed, output=PRINTED), name="sea")


def make(out: Path, job: Job) -> None:
    """As a rank does, with noise for a picture."""
    folder = JobFolder.of(out, job.id)
    folder.open(job)
    pixels = np.random.default_rng(job.request.seed).random((48, 64, 3), dtype=np.float32)
    small = np.rint(255 * pixels[:24, :32]).astype(np.uint8)
    write_png(folder.path / "native.png", small, {"of": "native.png"})
    recipe = {"format": FORMAT, "request": {"output": PRINTED, "dpi": None, "seed": job.request.seed}}
    made = write_poster(folder.poster, bands_of_array(pixels), recipe)
    names = ["poster.png", "poster.recipe.json", *made["files"]]
    folder.finish(job.fingerprint, {"pixels_sha256": made["pixels_sha256"], "seconds": 1.0}, names=names)


def child(out: Path, job: Job, call: int, after: bool) -> None:
    """Make a poster and die before or after the ``call``-th file comes into place."""
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            nonlocal count
            count += 1
            if count == call and not after:
                os._exit(KILLED)
            value = real(*given)
            if count == call:
                os._exit(KILLED)
            return value

        return called

    os.environ["SOURCE_DATE_EPOCH"] = "1728518400"  # equal prints are equal files
    os.replace = dying(os.replace)
    make(out, job)


def run(out: Path, job: Job, *, call: int = 0, after: bool = False) -> int:
    """The exit status of a child that is killed at that call, or of one that is not. libvips has threads, so
    each is forked from a process that never called it."""
    process = SERVER.Process(target=child, args=(out, job, call, after))
    process.start()
    process.join(60)
    assert process.exitcode is not None, "a child hangs"
    return process.exitcode


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_moment_leaves_no_half_poster_and_the_next_run_is_whole(
    tmp_path: Path, after: bool
) -> None:
    job, moments = job_of(1), 0
    assert run(tmp_path / "calm", job) == run(tmp_path / "former", job_of(0)) == 0
    calm = contents(tmp_path / "calm" / "sea")
    for call in itertools.count(1):
        out = tmp_path / f"out-{call}"
        shutil.copytree(tmp_path / "former", out)
        status = run(out, job, call=call, after=after)
        if status == 0:
            break
        assert status == KILLED
        moments += 1
        folder = JobFolder.of(out, "sea")
        done = folder.finished(job.fingerprint, read_all=True)
        assert isinstance(state_of(job, None, folder), Done if done else Queued)
        assert not done or contents(folder.path) == calm, f"call {call}"
        assert run(out, job) == 0
        assert contents(folder.path) == calm, f"call {call}"
    assert moments >= 7
