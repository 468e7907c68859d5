"""Every command of README and GUIDE parses with the program's own parser; every file they show exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from imax_dist.cli.main import build_parser, main
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method

ROOT = Path(__file__).parent.parent
README, GUIDE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "GUIDE.md"))
LONGEST_LINE = 130


def commands(text: str) -> list[str]:
    """The indented lines that begin with ``imax`` or ``torchrun``, without their comments."""
    lines = (line for line in text.splitlines() if re.match(r"^    (imax|torchrun) ", line))
    return [line.strip().split("  #")[0].strip() for line in lines]


def arguments(command: str) -> list[str]:
    """What follows ``imax`` (or ``-m imax_dist``); of ``a|b|c`` the first."""
    words = [word.split("|")[0] for word in shlex.split(command)]
    return words[words.index("imax_dist") + 1 :] if words[0] == "torchrun" else words[1:]


def test_readme_and_guide_show_commands() -> None:
    assert len(commands(README)) >= 8
    assert len(commands(GUIDE)) >= 40


@pytest.mark.parametrize("command", dict.fromkeys(commands(README) + commands(GUIDE)))
def test_a_documented_command_parses_and_its_switches_exist(command: str) -> None:
    options = build_parser().parse_args(arguments(command))
    if options.verb == "generate" and not options.recipe:
        from imax_dist.cli.request_options import given_fields

        given = given_fields(options)
        load_method(
            Request(options.prompt, **{key: given[key] for key in ("preset", "method") if key in given})
        )


@pytest.mark.parametrize("text", [README, GUIDE], ids=["README", "GUIDE"])
def test_every_linked_file_exists(text: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_the_guide_names_every_verb() -> None:
    (verbs,) = (action.choices for action in build_parser()._actions if action.dest == "verb")
    assert [verb for verb in verbs if f"imax {verb}" not in GUIDE] == []


def test_the_readme_stays_a_readme() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("name", ["GUIDE.md", "METHOD.md", "CONTRIBUTING.md", "SECURITY.md", "DECISIONS.md"])
def test_prose_is_read_without_scrolling(name: str) -> None:
    """Tables and commands may be wider."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    prose = [line for line in lines if not line.startswith(("|", "    "))]
    assert [line for line in prose if len(line) > LONGEST_LINE] == []
    assert len(prose) > 30


def test_the_guide_has_every_exit_code() -> None:
    import imax_dist.errors as errors

    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in classes if issubclass(kind, errors.ImaxError)}
    assert {code for code in codes if f"| {code} |" not in GUIDE} == set()


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert Image.open("moon.png").size == (512, 384)


JOBS = {
    "A1 at 200 dpi": ["--paper", "A1", "--dpi", "200"],
    "100 of 4096x4096": ["--size", "4096x4096", "--count", "100"],
}
COSTS = [line for line in GUIDE.splitlines() if line.startswith(tuple(f"| {job}" for job in JOBS))]


def test_the_guide_plans_both_jobs_on_three_clusters() -> None:
    assert len(COSTS) == 6


@pytest.mark.parametrize("row", COSTS)
def test_a_row_of_the_cost_table_is_what_imax_plan_says(row: str, capsys: pytest.CaptureFixture[str]) -> None:
    from imax_dist.wording import duration

    job, cluster, *shown = [cell.strip() for cell in row.strip("|").split("|")]
    options = ["plan", "--json", "--gpus", cluster, "--model", "black-forest-labs/FLUX.1-dev", *JOBS[job]]
    assert main(options) == 0
    found = json.loads(capsys.readouterr().out)["chosen"]
    assert shown == [
        f"{found['gangs']} x {found['ranks']}",
        duration(found["step"]["total"]),
        duration(found["poster"]["total"]),
        "{step:.0%}, {poster:.0%}".format(**found["efficiency"]).replace("%", " %"),
        f"{found['memory']['total'] / 2**30:.0f} GiB",
        duration(found["makespan"]),
        f"{found['gpu_hours']:.2g}",
    ]


def test_the_demo_says_one_line_a_picture() -> None:
    """Quiet, a render prints its last line alone; the stages before it are progress."""
    said = re.findall(r"^\t@\$\(BIN\)/imax (generate .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert ["-q" in shlex.split(command) for command in said] == [True] * 4
