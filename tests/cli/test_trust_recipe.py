"""A stranger's recipe reads no file and asks no hub, unless the user says so or the file lies beside it."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pictures import png_poster

from imax_dist.errors import NoPermission
from imax_dist.named_file import fields_naming_files
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.trust import require_harmless

Imax = Callable[..., Any]
FOREIGN: dict[str, Any] = {
    "guide": "/etc/hostname",
    "lora": ["/home/you/style.safetensors:0.8"],
    "model": "someone/evil-model",
    "preset": "/tmp/preset.yaml",
    "output": {"pdf": {"icc": "/home/you/shop.icc"}},
    "method": {"reference": {"network": "/home/you/network.safetensors"}},
}
SHOWN = {
    "guide": "guide /etc/hostname",
    "lora": "lora /home/you/style.safetensors",
    "model": "model someone/evil-model",
    "preset": "preset /tmp/preset.yaml",
    "output": "icc /home/you/shop.icc",
    "method": "method /home/you/network.safetensors",
}


def recipe(folder: Path, **request: Any) -> Path:
    path = folder / "sea.json"
    path.write_text(json.dumps({"format": "imax-recipe/1", "request": {"prompt": "a red sun", **request}}))
    return path


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_what_it_names_is_shown_and_not_opened(
    imax: Imax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def opened(*given: object, **named: object) -> None:
        raise AssertionError("something was read")

    monkeypatch.setattr("imax_dist.pipeline.recipe.load_method", opened)
    monkeypatch.setattr("imax_dist.pipeline.renderer.check_request", opened)
    path = recipe(tmp_path, **{name: FOREIGN[name]})
    outcome = imax("generate", "--recipe", path, "--out", tmp_path / "again.png")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (77, "", 1)
    assert f"names {SHOWN[name]}: a recipe may come from anybody" in outcome.err
    assert "--trust-recipe" in outcome.err


def test_every_field_that_names_a_file_is_among_those_tried() -> None:
    """A field that is added later counts as one until it is marked, and belongs here then."""
    words = {name: "x.yaml" for name, kind in typing.get_type_hints(Request).items() if "str" in str(kind)}
    words |= {"output": FOREIGN["output"], "method": FOREIGN["method"], "model": "./x"}
    assert set(fields_naming_files(Request, words)) == set(FOREIGN)


def test_trusted_or_named_by_the_user_it_is_read(imax: Imax, tmp_path: Path) -> None:
    path = recipe(tmp_path, guide="/nowhere/photo.png", size="64x64")
    outcome = imax("generate", "--recipe", path, "--trust-recipe", "--out", tmp_path / "again.png")
    assert outcome.code == 66
    assert "guide /nowhere/photo.png does not exist" in outcome.err
    own = tmp_path / "mine.png"
    outcome = imax("generate", "--recipe", path, "--guide", own, "--out", tmp_path / "again.png")
    assert outcome.code == 66
    assert f"guide {own} does not exist" in outcome.err


def refused(folder: Path, named: frozenset[str] = frozenset(), **request: Any) -> bool:
    try:
        recipe = {"request": {"prompt": "a", **request}}
        require_harmless(recipe, beside=folder, named=named, where="sea.json")
    except NoPermission:
        return True
    return False


def test_files_beside_it_and_shipped_names_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, outside = tmp_path / "posters", tmp_path / "photo.png"
    folder.mkdir()
    outside.write_bytes(b"x")
    (folder / "photo.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(outside)
    assert not refused(folder, guide=str(folder / "photo.png"), model="flux-dev", preset="paper")
    assert not refused(folder, named=frozenset(["guide"]), guide=str(outside))
    assert refused(folder, guide=str(outside))
    assert refused(folder, guide=str(folder / "link.png"))
    assert refused(folder, guide=str(folder / ".." / "photo.png"))
    assert refused(folder, guide="a" * 5000)
    assert refused(folder, guide="a\0b")
    monkeypatch.chdir(folder)
    assert not refused(folder, guide="photo.png", lora=["photo.png:0.5"])
    assert refused(folder, model="someone/model")


@pytest.mark.parametrize(
    "taken", [{"model": "someone/evil-model"}, {"lora": ["/home/you/style.safetensors"]}]
)
def test_a_poster_that_is_made_anew_in_part_is_a_stranger_s_too(
    imax: Imax, tmp_path: Path, taken: dict[str, Any]
) -> None:
    poster = png_poster(tmp_path / "sea.png", **taken)
    outcome = imax("redo", poster, "--region", "0,0,64,64", "--out", tmp_path / "again.png")
    assert (outcome.code, outcome.err.count("\n")) == (77, 1)
    assert "a recipe may come from anybody" in outcome.err


def test_the_switches_it_was_made_with_are_looked_at_as_well(imax: Imax, tmp_path: Path) -> None:
    """They take the request's place where a preset has changed since."""
    path = tmp_path / "sea.json"
    method = {"reference": {"network": "/home/you/network.safetensors"}}
    plain = {"request": {"prompt": "a"}}
    for content in ({"request": {"prompt": "a", "method": method}}, {**plain, "plan": {"method": method}}):
        path.write_text(json.dumps({"format": "imax-recipe/1", **content}))
        outcome = imax("generate", "--recipe", path, "--out", tmp_path / "again.png")
        assert outcome.code == 77
        assert "method /home/you/network.safetensors" in outcome.err
