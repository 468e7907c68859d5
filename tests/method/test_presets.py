"""A recipe is a frozen value whose defaults are ours, and every field can be set alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from imax_dist.errors import BadConfig
from imax_dist.method.guidance import SCHEDULES
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS
from imax_dist.method.proportional_attention import LOGIT_FACTORS
from imax_dist.method.rope_rules import FREQUENCY_RULES
from imax_dist.method.text_duplication import COPY_RULES
from imax_dist.settings_mapping import from_mapping, to_mapping


def load(mapping: dict[str, Any]) -> Method:
    return from_mapping(Method, mapping, where="preset")


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        Method().patch_shift = False  # type: ignore[misc]


def test_defaults_name_known_functions() -> None:
    method = Method()
    assert method.guidance.schedule in SCHEDULES
    assert method.guidance.projection in PROJECTIONS
    assert method.rope.rule in FREQUENCY_RULES
    assert method.attention in LOGIT_FACTORS
    assert method.text.copies in COPY_RULES


def test_a_recipe_survives_the_way_to_json_and_back() -> None:
    method = load({"rope": {"rule": "none", "factor": 2}, "time_shift": {"native": 3}})
    assert load(to_mapping(method)) == method


def test_one_key_changes_one_field_only() -> None:
    changed = load({"rope": {"floor": False}})
    assert changed.rope.floor is False
    assert dataclasses.replace(changed, rope=Method().rope) == Method()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Method)])
def test_every_switch_can_be_left_out(field: str) -> None:
    mapping = to_mapping(Method())
    del mapping[field]
    assert load(mapping) == Method()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"reference": {"kind": "per-step"}},
            r"kind: 'per-step' is not a choice; did you mean 'per_step'",
        ),
        (
            {"reference": {"upsample": "bicubic"}},
            r"'bicubic' is not a choice; known: pixels, latents",
        ),
        (
            {"reference": {"posterior": "means"}},
            r"posterior: 'means' is not a choice; did you mean 'mean'",
        ),
        ({"rope": {"scale": "axis"}}, r"rope: scale: 'axis' is not a choice; did you mean 'axes'"),
        (
            {"text": {"cell": "guided"}},
            r"text: cell: 'guided' is not a choice; did you mean 'guide'",
        ),
        ({"patch_shift": "yes"}, r"patch_shift: 'yes' is not a choice; known: true, false, network, step"),
        ({"rope": {"factor": "big"}}, r"rope: factor must be a number, got 'big'"),
        ({"attention": False}, r"attention must be text, got False"),
        ({"gidance": {}}, r"unknown key 'gidance'; did you mean 'guidance'"),
    ],
)
def test_mistakes_name_the_key_and_the_right_word(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        load(mapping)
