"""launch/ and `imax launch` for real: pictures, exit codes, signals, lost ranks, many nodes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from same_picture import same_picture
from tiny_flux import make_tiny_flux

LAUNCH = Path(__file__).parents[2] / "launch"
PROGRAMS = Path(sys.executable).parent
PROMPT = "a red sun over the sea"
TIMEOUT_S = 150
pytestmark = [
    pytest.mark.slow,
    pytest.mark.machines,
    pytest.mark.skipif(shutil.which("imax", path=PROGRAMS) is None, reason="imax is not installed here"),
]

# srun on one machine, as far as the script relies on it: one task a node, its number, one exit code.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$node "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
code=0
for task in "${tasks[@]}"; do
  while wait "$task"; own=$?; [ $own -gt 128 ] && kill -0 "$task" 2>/dev/null; do :; done
  [ $own -gt $code ] && code=$own
done
exit $code
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")


def options(tiny: Path, out: Path, *more: object) -> list[str]:
    words = (PROMPT, "--model", tiny, "--size", "144x112", "--device", "cpu", "--out", out, *more)
    return [*map(str, words), "--preset", "one_jump"]


def start(
    program: object, *words: object, cwd: Path | None = None, **variables: str
) -> subprocess.Popen[str]:
    """A program in a session of its own, with one thread a rank."""
    return subprocess.Popen(
        [str(program), *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for rank in ranks_of(process):
            os.kill(rank, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"not done after {TIMEOUT_S} s:\n{out}\n{err}") from None
    return process.returncode, out, err


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the ranks: those whose parent is the launcher."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in found}
    return [pid for pid, command in commands.items() if "imax_dist\0generate" in command]


def lines_until(process: subprocess.Popen[str], beginning: str) -> Iterator[str]:
    """stderr up to the first line that starts so."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line starts with {beginning!r}; exit code {process.wait()}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of one process, made by launch/local.sh."""
    out = tmp_path_factory.mktemp("alone") / "one.png"
    code, _, err = finish(start(LAUNCH / "local.sh", *options(tiny, out, "--steps", 40)))
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a poster that one test begins and the next finishes.

    It has files with names of the standard library, which no start may import.
    """
    folder = tmp_path_factory.mktemp("stopped")
    for name in ("grp", "random", "statistics", "calendar"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the current folder was run')")
    return folder


def two_ranks(tiny: Path, folder: Path) -> subprocess.Popen[str]:
    words = options(tiny, folder / "two.png", "--steps", 40, "--checkpoint-every", 2, "-v")
    return start(LAUNCH / "torchrun.sh", *words, cwd=folder, RANKS="2")


def test_two_ranks_of_the_script_lose_one_start_again_and_are_stopped(tiny: Path, stopped: Path) -> None:
    """A killed rank makes all start again from the checkpoint; SIGTERM makes all write one and leave."""
    process = two_ranks(tiny, stopped)
    list(lines_until(process, "step   4/40"))
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    told = [*lines_until(process, "imax launch: a rank was lost"), *lines_until(process, "step ")]
    assert "imax launch: a rank was lost; all start again, 2 more times\n" in told
    assert any("resumed after step" in line for line in told)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, out) == (75, ""), err
    assert "all start again" not in err
    assert err.count("stopping after this step") == 1
    assert err.count("run the same command again to resume") == 1


def test_two_stopped_ranks_resume_to_the_picture_of_one(tiny: Path, alone: Path, stopped: Path) -> None:
    code, _, err = finish(two_ranks(tiny, stopped))
    assert code == 0, err
    assert "resumed after step" in err
    same_picture(alone, stopped / "two.png", ranks=2)


def test_without_restarts_a_killed_rank_is_exit_code_70_and_a_wrong_model_66(
    tiny: Path, tmp_path: Path
) -> None:
    words = options(tiny, tmp_path / "two.png", "--steps", 40, "-v")
    process = start("imax", "launch", "--ranks", 1, "--restarts", 0, "generate", *words)
    list(lines_until(process, "step   2/40"))
    os.kill(ranks_of(process)[0], signal.SIGKILL)
    assert finish(process)[0] == 70

    words = options(tmp_path / "nothing", tmp_path / "two.png")
    code, out, err = finish(start("imax", "launch", "--ranks", 1, "generate", *words))
    assert (code, out) == (66, ""), err
    assert "all start again" not in err
    assert err.count("imax generate: ") == 1


def test_two_nodes_under_slurms_script_make_the_same_picture(tiny: Path, alone: Path, tmp_path: Path) -> None:
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho 127.0.0.1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}:{PROGRAMS}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURM_JOB_NUM_NODES": "2",
        "RANKS": "1",
        "PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    out = tmp_path / "two.png"
    code, _, err = finish(start(LAUNCH / "slurm.sh", *options(tiny, out, "--steps", 40), **variables))
    assert code == 0, err
    same_picture(alone, out, ranks=2)


def test_nodes_that_do_not_find_each_other_say_so(tiny: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    variables = {"NODES": "2", "NODE_RANK": "1", "RANKS": "1", "RENDEZVOUS": f"127.0.0.1:{free_port()}"}
    process = start(
        "imax", "launch", "--ranks", 1, "--nodes", 2, "--node-rank", 1, "--join-timeout", 3,
        "--rendezvous", variables["RENDEZVOUS"], "generate", *options(tiny, tmp_path / "two.png"),
    )  # fmt: skip
    code, _, err = finish(process)
    assert code == 69, err
    assert "node 1 of 2 did not find the others" in err
    assert "is the same command running on every node?" in err
    assert time.monotonic() - began < 60
