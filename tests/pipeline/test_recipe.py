"""A recipe holds all that is needed to make the same bits again, and says what differs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch

from imax_dist.errors import BadConfig, BadManifest, BadValue
from imax_dist.models.load import load_model
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.recipe import differences, make_recipe, request_of
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method
from imax_dist.settings_mapping import to_mapping

ALONE = Topology.alone()
REQUEST = Request(
    "a red sun, été", size="506x266", seed=2**62, preset="paper", steps=3, native_steps=2, dtype="float64",
    method={"rope": {"factor": 1.5}, "patch_shift": True},
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    model = load_model("embedded", device=torch.device("cpu"), dtype="float64", with_text_encoders=False)
    ranks = join_ranks(ParallelSettings(), ALONE, heads=model.spec.heads)
    return make_recipe(make_plan(REQUEST, model.spec), model, ranks)


def test_a_recipe_survives_json_and_gives_its_request_back(recipe: dict[str, Any]) -> None:
    assert request_of(json.loads(json.dumps(recipe)), where="file") == REQUEST


def test_a_recipe_replays_with_its_own_switches_when_its_preset_has_changed() -> None:
    """Recipes of the day when `imax` was one jump from noise."""
    one_jump = to_mapping(load_method(Request("x", preset="one_jump")))
    old = {
        "format": "imax-recipe/1",
        "request": {"prompt": "x", "preset": "imax"},
        "plan": {"method": one_jump},
    }
    assert load_method(request_of(old, where="file")) == load_method(Request("x", preset="one_jump"))
    now = {**old, "plan": {"method": to_mapping(load_method(Request("x")))}}
    assert request_of(now, where="file") == Request("x")


def test_a_recipe_names_what_was_decided(recipe: dict[str, Any]) -> None:
    assert recipe["format"] == "imax-recipe/1"
    assert recipe["plan"]["render_size"] == "512x272"
    assert recipe["plan"]["sigmas"][0] == 1.0
    assert recipe["plan"]["method"]["rope"]["factor"] == 1.5
    assert recipe["plan"]["model_settings"]["text_tokens"] == 24
    assert recipe["model"]["name"] == "embedded"
    assert len(recipe["model"]["weights_sha256"]) == 64


def test_a_recipe_names_its_environment(recipe: dict[str, Any]) -> None:
    around = recipe["environment"]
    assert around["torch"] == torch.__version__
    assert around["device"].startswith("cpu")
    assert (around["ulysses"], around["ring"], around["threads"]) == (1, 1, torch.get_num_threads())


def test_the_same_environment_has_no_differences(recipe: dict[str, Any]) -> None:
    assert differences(recipe, copy.deepcopy(recipe)) == []


def test_a_recipe_from_before_compilation_was_made_without_it(recipe: dict[str, Any]) -> None:
    old = copy.deepcopy(recipe)
    del old["environment"]["compile"]
    assert differences(old, recipe) == []


def test_a_recipe_that_calls_its_environment_surroundings_is_read(recipe: dict[str, Any]) -> None:
    old = copy.deepcopy(recipe)
    old["surroundings"] = {**old.pop("environment"), "ring": 4}
    assert differences(old, recipe) == ["ring: 4 -> 1"]


def test_differences_say_then_and_now(recipe: dict[str, Any]) -> None:
    now = copy.deepcopy(recipe)
    now["environment"]["ulysses"] = 2
    now["model"]["weights_sha256"] = "f00"
    found = differences(recipe, now)
    assert found == ["ulysses: 1 -> 2", f"weights: {recipe['model']['weights_sha256']} -> f00"]


def test_a_recipe_without_an_environment_differs_in_all(recipe: dict[str, Any]) -> None:
    old = {key: value for key, value in recipe.items() if key not in ("environment", "model")}
    assert f"torch: None -> {torch.__version__}" in differences(old, recipe)


@pytest.mark.parametrize(
    "wrong", [{}, {"format": "other/1"}, {"format": "imax-recipe/1", "request": "a sun"}]
)
def test_json_of_another_kind_is_no_recipe(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadManifest, match=r"some.json is not a recipe of this program \(imax-recipe/1\)"):
        request_of(wrong, where="some.json")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"sede": 1}, BadConfig, r"some.json: unknown key 'sede'; did you mean 'seed'"),
        ({"prompt": 5}, BadConfig, r"some.json: prompt must be text, got 5"),
        ({"seed": -1}, BadValue, r"seed -1 is outside 0 to"),
        ({"size": "1x1"}, BadValue, r"a side must be between 16 and 65536 px"),
    ],
)
def test_a_recipe_edited_wrongly_is_refused(
    recipe: dict[str, Any], changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        request_of({**recipe, "request": {**recipe["request"], **changes}}, where="some.json")
