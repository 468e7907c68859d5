"""The documents hold together: decisions are dated and indexed, links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDERS = ("imax_dist", "configs", "cluster", "launch", "tests")
ROOT = Path(__file__).parent.parent
DECISIONS = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^## (\d+)\. (.+)\n+(.+)", DECISIONS, re.MULTILINE)
DOCUMENTS = sorted(path.name for path in ROOT.glob("*.md"))


PACKAGE = ROOT / "imax_dist"
ROOMS = {path.name for base in (ROOT, PACKAGE) for path in base.iterdir() if path.is_dir()}
PLACEHOLDERS = {"configs/models/NAME.yaml"}


def words(text: str) -> list[str]:
    """What stands in backticks, word by word, without what follows a colon."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    return [word.split(":")[0].rstrip("/") for phrase in quoted for word in phrase.split()]


def anchor(heading: str) -> str:
    """What GitHub makes of a heading: lower case, spaces as hyphens, no other marks."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(number) for number, _, _ in ENTRIES] == list(range(1, len(ENTRIES) + 1))


@pytest.mark.parametrize(("number", "title", "line"), ENTRIES)
def test_a_decision_says_its_date_and_status(number: str, title: str, line: str) -> None:
    assert re.search(r"20\d\d-\d\d-\d\d", line), f"{number}. {title}: no date"
    assert re.search(r"accepted|superseded|amended|note", line), f"{number}. {title}: no status"


def pairs(direction: str, *, later_first: bool) -> set[tuple[int, int]]:
    """(later, earlier) decision, as the status lines that say ``direction`` have it."""
    found = set()
    for number, _, line in ENTRIES:
        for listed in re.findall(rf"(?i)\b(?:{direction}) ((?:\d+(?:, | and )?)+)", line):
            others = [int(other) for other in re.findall(r"\d+", listed)]
            found |= {(int(number), other) if later_first else (other, int(number)) for other in others}
    return found


def test_what_one_decision_changes_says_so_too() -> None:
    changes = pairs("amends|supersedes", later_first=True)
    assert len(changes) >= 30
    assert changes ^ pairs("amended by|superseded by", later_first=False) == set()
    assert all(later > earlier for later, earlier in changes)


def test_every_decision_stands_in_the_index() -> None:
    index = DECISIONS[DECISIONS.index("## Index by room") : DECISIONS.index("## 1. ")]
    linked = {number for number in re.findall(r"\[(\d+)\]\(#", index)}
    assert {number for number, _, _ in ENTRIES} - linked == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_link_to_a_section_finds_its_heading(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w.]*)#([^)]+)\)", text)
    missing = []
    for target, section in links:
        there = (ROOT / (target or name)).read_text(encoding="utf-8")
        headings = {anchor(line.lstrip("#").strip()) for line in there.splitlines() if line.startswith("#")}
        if section not in headings:
            missing.append(f"{target}#{section}")
    assert missing == []


def test_the_workflow_for_strangers_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yaml").read_text(encoding="utf-8"))
    commands = [step.get("run") for step in workflow["jobs"]["check"]["steps"]]
    assert ".ci/run" in commands
    assert "make demo check" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_a_document_names_exists(name: str) -> None:
    """Paths are given from the top of the repository or of the package."""
    named = {
        word
        for word in words((ROOT / name).read_text(encoding="utf-8"))
        if re.fullmatch(r"[\w.\-]+(/[\w.\-*]+)+", word) and word.split("/")[0] in ROOMS
    }
    found = {word for word in named if any(list(base.glob(word)) for base in (ROOT, PACKAGE))}
    assert named - found - PLACEHOLDERS == set()


METHOD = (ROOT / "METHOD.md").read_text(encoding="utf-8")
FUNCTIONS = re.findall(r"`([a-z_/]+\.py)`: ((?:`\w+`(?:, )?)+)", METHOD)


def test_method_names_the_functions_of_many_files() -> None:
    assert len(FUNCTIONS) >= 12


@pytest.mark.parametrize(("file", "names"), FUNCTIONS)
def test_every_function_that_method_names_is_in_its_file(file: str, names: str) -> None:
    source = (PACKAGE / file).read_text(encoding="utf-8")
    defined = set(re.findall(r"^(?:def|class) (\w+)|^(\w+)(?:: .*)? = ", source, re.MULTILINE))
    known = {name for pair in defined for name in pair if name} | set(
        re.findall(r'^    "(\w+)":', source, re.M)
    )
    assert set(re.findall(r"`(\w+)`", names)) - known == set()


def run_ci(checkout: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """``.ci/run`` of ``checkout``, with a make that lists its folder and its home, and fails with 7."""
    for name, body in {"make": 'echo "$*"; ls -A . "$HOME"; exit 7', "apt-get": "exit 1"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run([checkout / ".ci/run"], env=env, capture_output=True, text=True, check=False)


def test_what_ci_runs_is_a_clone_with_an_empty_home(tmp_path: Path) -> None:
    checkout, programs = tmp_path / "checkout", tmp_path / "programs"
    programs.mkdir()
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    (checkout / "untracked.py").touch()
    ran = run_ci(checkout, programs)
    assert ran.returncode == 7
    assert ran.stdout.startswith("demo check")
    assert "untracked.py" not in ran.stdout
    assert ".git" in ran.stdout
    assert ran.stdout.endswith("/home:\n")
    with (checkout / ".ci/run").open("a", encoding="utf-8") as script:
        script.write("# changed\n")
    assert "untracked.py" in run_ci(checkout, programs).stdout


def test_a_new_clone_has_every_file() -> None:
    """Git ignores nothing that the program, its settings and its tests are made of."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", *FOLDERS]
    found = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"not a git checkout: {found.stderr.strip()}")
    assert [path for path in found.stdout.splitlines() if "__pycache__/" not in path] == []
