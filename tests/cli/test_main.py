"""The command as a whole: help for people without torch, exit codes, the Python door."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import imax_dist
from imax_dist.cli.main import VERBS, build_parser
from imax_dist.cli.parser import VerbParser
from imax_dist.cli.upscale import STRENGTH

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
    left = [word.strip(",") for line in outcome.out.splitlines() for word in line.split()[:3]]
    assert set(verbs()) <= set(left)
    assert "imax generate" in outcome.out
    assert len(verbs()) >= len(VERBS)


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
        ([], "imax: give a command; imax --help lists them"),
        (["generat"], "imax: there is no command 'generat'; did you mean generate?"),
        (
            ["generate", "a sun", "--szie", "64x64"],
            "imax generate: unknown option --szie; did you mean --size?",
        ),
        (
            ["generate", "--szie", "64x64", "a sun"],
            "imax generate: unknown option --szie; did you mean --size?",
        ),
        (["generate", "a", "red", "sun"], 'imax generate: quote the prompt: imax generate "a red sun"'),
        (["finish", "a.tif", "--bleed", "-3mm"], "that begins with a dash is written --bleed=-..."),
        (["serve", "--out", "x", "--check", "--add-token", "a"], "not allowed with argument --check"),
        (
            ["study", "preset", "--out", "x"],
            "imax study: there is no study or task 'preset'; did you mean presets? (imax study --list",
        ),
        (
            ["study", "zzzz"],
            "imax study: there is no study or task 'zzzz' (imax study --list lists the",
        ),
        (["model", "chekc"], "there is no command 'chekc'; did you mean check? (imax model --help lists the"),
        (["model", "check", "a", "b"], "imax model check: too many arguments: b"),
        (["plan", "--zzzz"], "imax plan: the following arguments are required: --gpus"),
        (["generate", "a sun", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["generate", "a sun", "--resume", "maybe"], "argument --resume: invalid choice: 'maybe'"),
    ],
)
def test_wrong_usage_is_exit_code_two(imax: Imax, arguments: list[str], message: str) -> None:
    outcome = imax(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_help_of_generate_begins_with_what_a_newcomer_needs() -> None:
    ended = python("-m", "imax_dist", "generate", "--help")
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    screen = "\n".join(lines[:24])
    assert all(
        name in screen
        for name in ("PROMPT", "--out", "--size", "--paper", "--model", "--seed", "--count", "--guide")
    )
    assert not any(name in screen for name in ("--ulysses", "--kernel", "--vae", "--grid", "--trust-recipe"))
    groups = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert groups == [
        "options:",
        "poster:",
        "your own picture:",
        "several posters, or one again:",
        "method:",
        "running:",
        "parallel (several ranks):",
        "examples:",
    ]


def test_help_of_a_verb_is_found_both_ways(imax: Imax) -> None:
    assert imax("help", "plan").out == imax("plan", "--help").out
    assert imax("help").out == imax("--help").out
    outcome = imax("help", "plann")
    assert outcome.code == 78
    assert "did you mean 'plan'?" in outcome.err


def all_parsers(parser: VerbParser) -> Iterator[VerbParser]:
    yield parser.declared()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from all_parsers(inner)


def test_the_studies_are_declared_once_study_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser()
    assert parser.verbs["study"].later is not None
    assert parser.parse_args(["study", "guidance", "--out", "here"]).study_verb == "guidance"
    assert parser.verbs["study"].later is None
    with pytest.raises(SystemExit):
        parser.parse_args(["study", "gidance", "--out", "here"])
    assert "guidance" in capsys.readouterr().err


def test_every_page_of_help_fits_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = [
        f"{parser.prog}: {line}"
        for parser in all_parsers(build_parser())
        for line in parser.format_help().splitlines()
        if len(line) > 80
    ]
    assert wide == []


def test_the_examples_of_every_page_of_help_are_commands() -> None:
    parser = build_parser()
    lines = [
        line
        for page in all_parsers(parser)
        for line in (page.epilog or "").replace("\\\n", " ").splitlines()
        if line.startswith("  imax ")
    ]
    for line in lines:
        parser.parse_args(shlex.split(line)[1:])
    assert len(lines) > 10


def test_every_command_and_sub_command_takes_debug() -> None:
    """Wherever it stands: before a command, between it and its own, or after both."""
    pages = list(all_parsers(build_parser()))
    assert [page.prog for page in pages if "--debug" not in page._option_string_actions] == []
    line = ["study", "run", "mine.yaml", "--out", "mine"]
    for place in (0, 1, 2, len(line)):
        assert build_parser().parse_args([*line[:place], "--debug", *line[place:]]).debug
    assert "debug" not in build_parser().parse_args(line)


def test_help_names_the_defaults_that_a_render_uses(imax: Imax) -> None:
    from imax_dist.pipeline.switches import REGION_STRENGTH

    upscale, redo = (imax(verb, "--help").out for verb in ("upscale", "redo"))
    assert f"0 to 1 (default: {STRENGTH:g})" in upscale
    assert "(default: twice the picture)" in " ".join(upscale.split())
    assert f"may change, 0 to 1 (default: {REGION_STRENGTH:g})" in redo
    assert "kept, 0 to 1 (default: 0)" in redo


def test_usage_is_what_must_be_given_in_one_line(imax: Imax) -> None:
    def first(*words: str) -> str:
        return str(imax(*words, "--help").out).partition("\n")[0]

    assert first("plan") == "usage: imax plan --gpus CLUSTER [MANIFEST] [options]"
    assert first("finish") == "usage: imax finish POSTER [options]"
    assert first("model", "check") == "usage: imax model check MODEL [options]"


def test_every_option_of_every_verb_says_what_it_does() -> None:
    silent = [
        f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"
        for parser in all_parsers(build_parser())
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction)
        and action.help != argparse.SUPPRESS  # what a launcher tells its ranks
        and len((action.help or "").split()) < 2
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("presets", "imax_late"),
        ("papers", "A2"),
        ("models", "flux-dev"),
        ("hardware", "H100"),
        ("studies", "rope"),
    ],
)
def test_names_that_options_take_can_be_listed(imax: Imax, kind: str, name: str) -> None:
    outcome = imax("list", kind)
    assert outcome.code == 0
    rows = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert len(rows[name]) > 5
    assert {"name": name, "about": rows[name]} in json.loads(imax("list", kind, "--json").out)
    assert imax("list", "colours").code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script_knows_verbs_and_options(imax: Imax, shell: str, tmp_path: Path) -> None:
    outcome = imax("completion", shell)
    assert outcome.code == 0
    words = ("generate", "--native-steps", "approve", "train-flow", "guidance")
    assert all(word in outcome.out for word in words)
    if shell == "bash":
        script = tmp_path / "complete.sh"
        script.write_text(outcome.out, encoding="utf-8")
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_ctrl_c_is_reported_without_a_traceback(imax: Imax, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imax_dist.cli.doctor.packages", interrupt)
    outcome = imax("doctor")
    assert (outcome.code, outcome.err) == (130, "imax doctor: interrupted\n")


def test_python_gets_render_and_request_from_the_package() -> None:
    from imax_dist.pipeline.renderer import render
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
