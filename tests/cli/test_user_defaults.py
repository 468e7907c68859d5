"""A user's own defaults: shown, part of the request and its recipe, and never part of a replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imax_dist.cli.user_defaults import file_of_user
from imax_dist.output.image.provenance import read_recipe

Imax = Callable[..., Any]


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = file_of_user()
    path.parent.mkdir(parents=True)
    return path


def test_they_become_part_of_the_request_and_a_replay_takes_none(
    imax: Imax, tiny: Path, defaults: Path, tmp_path: Path
) -> None:
    defaults.write_text(f"model: {tiny}\npreset: direct\nkeep_native: true\n")
    out = tmp_path / "sea.png"
    made = imax("generate", "a red sun", "--size", "64x48", "--seed", 2, "--out", out)
    assert made.code == 0, made.err
    assert made.err.startswith(f"defaults of {defaults}: model {tiny}, preset direct, keep_native True\n")
    request = read_recipe(out)["request"]
    assert (request["model"], request["preset"]) == (str(tiny), "direct")

    defaults.write_text("preset: nonsense\nmodel: embedded\n")
    again = imax("generate", "--recipe", out, "--trust-recipe", "--out", tmp_path / "again.png", "--json")
    assert json.loads(again.out)["same_bits"] is True
    assert "defaults of" not in again.err


def test_the_command_line_comes_first(imax: Imax, tiny: Path, defaults: Path, tmp_path: Path) -> None:
    defaults.write_text("model: nonsense\npreset: nonsense\ncheckpoint_every: 1\n")
    words = ("--size", "64x48", "--preset", "direct", "--model", tiny, "--checkpoint-every", 5)
    made = imax("generate", "a red sun", *words, "--out", tmp_path / "sea.png", "-q")
    assert (made.code, made.err) == (0, "")


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("modle: embedded", 78, "unknown key 'modle'; did you mean 'model'?"),
        ("seed: 3", 78, "unknown key 'seed'"),
        ("model: 3", 78, "model must be text, got 3"),
        ("- model", 78, "the top level must be `key: value` lines"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(
    imax: Imax, defaults: Path, content: str, code: int, said: str
) -> None:
    defaults.write_text(content)
    for words in (["generate", "a red sun"], ["list", "defaults"]):
        outcome = imax(*words)
        assert (outcome.code, outcome.err.count("\n")) == (code, 1)
        assert str(defaults) in outcome.err
        assert said in outcome.err


def test_they_are_shown(imax: Imax, defaults: Path) -> None:
    assert "does not exist; its keys would be model, preset" in imax("list", "defaults").out
    defaults.write_text("model: flux-dev\ndpi: 150\n")
    assert imax("list", "defaults").out.splitlines() == [
        f"file   {defaults}",
        "model  flux-dev",
        "dpi    150.0",
    ]


def test_ranks_on_several_machines_take_none(
    imax: Imax, defaults: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each machine would read another user's file, and the ranks would render different posters."""
    from imax_dist.cli.main import build_parser

    defaults.write_text("model: flux-dev\n")
    words = ["generate", "a red sun"]
    assert build_parser().parse_args(words).model == "flux-dev"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert build_parser().parse_args(words).model is None
