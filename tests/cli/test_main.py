"""The command as a whole: help for people without torch, exit codes, the Python door."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imax_dist
from imax_dist.cli import queue
from imax_dist.cli.main import VERBS, build_parser

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "ray", "PIL", "numpy", "jaxtyping", "tifffile", "safetensors")
Imax = Callable[..., Any]

WITHOUT_HEAVY_IMPORTS = f"""
import sys
from imax_dist.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as leaving:
    assert leaving.code == 0, leaving.code
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
assert not loaded, loaded
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verbs() -> list[str]:
    (choices,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    return list(choices)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in verbs())])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    ended = python("-c", WITHOUT_HEAVY_IMPORTS, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


def test_help_fits_a_small_terminal() -> None:
    ended = python("-m", "imax_dist", "--help")
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_help_names_every_verb_and_where_to_start(imax: Imax) -> None:
    outcome = imax("--help")
    assert outcome.code == 0
    assert all(f"\n  {verb} " in outcome.out for verb in verbs())
    assert "imax generate" in outcome.out
    assert len(verbs()) == len(VERBS) - 1 + len(queue.VERBS), "one module declares the verbs of the queue"


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_explains_each_of_its_options(imax: Imax, verb: str) -> None:
    outcome = imax(verb, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"usage: imax {verb}")


def test_the_version_is_the_packages(imax: Imax) -> None:
    assert imax("--version").out == f"imax-dist {imax_dist.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB"),
        (["generat"], "invalid choice: 'generat'"),
        (["generate", "a sun", "--szie", "64x64"], "unrecognized arguments: --szie 64x64"),
        (["generate", "a sun", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["generate", "a sun", "--resume", "maybe"], "argument --resume: invalid choice: 'maybe'"),
    ],
)
def test_wrong_usage_is_exit_code_two(imax: Imax, arguments: list[str], message: str) -> None:
    outcome = imax(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_ctrl_c_is_told_without_a_traceback(imax: Imax, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imax_dist.cli.doctor.packages", interrupt)
    outcome = imax("doctor")
    assert (outcome.code, outcome.err) == (130, "imax doctor: interrupted\n")


def test_python_gets_render_and_request_from_the_package() -> None:
    from imax_dist.pipeline.render import render
    from imax_dist.pipeline.request import Request

    assert (imax_dist.render, imax_dist.Request) == (render, Request)
    with pytest.raises(AttributeError, match=r"module 'imax_dist' has no attribute 'rendr'"):
        imax_dist.rendr  # noqa: B018


@pytest.mark.parametrize("argument", ["--help", "--json"])
def test_a_reader_that_leaves_early_is_no_error(argument: str) -> None:
    """``imax ... | head -1``: nothing on stderr, whether the pipe breaks early or at the last flush."""
    command = f"{sys.executable} -m imax_dist model list {argument} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("141", "0")
