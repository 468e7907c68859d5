"""``imax generate`` as real processes: two ranks under torchrun, and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imax_dist.output.image.png import read_pixels
from imax_dist.output.image.provenance import read_recipe

PROMPT = "a red sun over the sea with two white boats"
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


def start(*command: object) -> subprocess.Popen[str]:
    """A process of its own group, one thread each, that prints as it goes."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; the whole group is killed at the timeout."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"not done after {TIMEOUT_S} s:\n{out}\n{err}") from None
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.machines
def test_two_ranks_under_torchrun_make_the_picture_of_one_process(
    imax: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    options = ["generate", PROMPT, "--model", tiny, "--size", "144x112", "--seed", 2, "--out"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "-m", "imax_dist"]
    code, out, err = finish(start(*launcher, *options, tmp_path / "two.png"))
    assert code == 0, err
    assert out.count("two.png") == 1
    assert err.count("decode") == 1

    assert imax(*options, tmp_path / "one.png").code == 0

    one, two = (read_pixels(tmp_path / name).astype(int) for name in ("one.png", "two.png"))
    assert np.abs(one - two).max() <= 1
    assert read_recipe(tmp_path / "two.png")["environment"]["ulysses"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.png", "one.recipe.json", "two.png", "two.recipe.json",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.machines
def test_a_terminated_poster_goes_on_later_and_is_the_same_file(
    imax: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    options = ["generate", PROMPT, "--model", tiny, "--size", "96x96", "--steps", 240, "-v", "--out"]
    process = start("-m", "imax_dist", *options, tmp_path / "sea.png")
    assert process.stderr is not None
    said = dropwhile(lambda line: "enlarge guidance" not in line, process.stderr)
    seen = next((line for line in said if line.startswith("step   3/")), None)
    assert seen is not None, "the target-size pass never came"
    steps = seen.split()[1].removeprefix("3/")
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (75, "")
    assert "stopping after this step; a second signal stops at once" in err
    last = err.splitlines()[-1]
    assert last.startswith("imax generate: stopped after step ")
    assert last.endswith(f" of {steps} of the target-size pass; run the same command again to resume")
    assert [path.name for path in tmp_path.iterdir()] == ["sea.checkpoints"]
    step = int(last.split()[5])
    assert (tmp_path / f"sea.checkpoints/step-1{step:05d}.safetensors").is_file()

    resumed = imax(*options, tmp_path / "sea.png", "--resume", "must")
    assert (resumed.code, f"resumed after step {step} of" in resumed.err) == (0, True)
    assert imax(*options, tmp_path / "whole.png").code == 0
    assert (tmp_path / "sea.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert not (tmp_path / "sea.checkpoints").exists()


SIGNALLED = """
import os, signal, sys
from imax_dist.cli.stop_signal import StopSignal
number = int(sys.argv[1])
stop = StopSignal()
print(stop(), end=" ")
os.kill(os.getpid(), number)
print(stop(), flush=True)
try:
    os.kill(os.getpid(), number)
finally:
    print("still here", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_leaves_at_once(number: signal.Signals) -> None:
    code, out, err = finish(start("-c", SIGNALLED, int(number)))
    assert (code, out) == (128 + number, "False True\n")
    assert err == "stopping after this step; a second signal stops at once\n"


STUCK = """
import ctypes, os, signal, sys, threading, time
from imax_dist.cli.stop_signal import StopSignal

def act():
    print("kept", flush=True)
    os._exit(0)

stop = StopSignal()
stop.at_once(lambda: print("of an earlier poster"))
stop.at_once(act)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)
"""


def test_what_is_to_happen_at_once_happens_though_the_main_thread_is_in_a_library() -> None:
    code, out, err = finish(start("-c", STUCK))
    assert (code, out, err) == (0, "kept\n", "")
