"""A recipe loses what a network has no place for; what was asked for by name is refused instead."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from imax_dist.errors import BadConfig
from imax_dist.models.load import describe_model
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.fit import omitted
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request


@pytest.fixture(scope="module")
def joint() -> ModelSpec:
    return describe_model("embedded")


def planned(spec: ModelSpec, **method: Any) -> PosterPlan:
    return make_plan(Request("a red sun", preset="paper", method=method), spec)


def test_a_network_with_rotary_positions_and_joint_text_keeps_all(joint: ModelSpec) -> None:
    made = planned(joint)
    assert (made.method.rope.rule, made.method.text.copies, made.last.copies.literal) == ("ntk", "grid", 4)
    assert omitted(joint) == []


def test_absolute_positions_drop_the_rope_rule_of_a_preset(joint: ModelSpec) -> None:
    absolute = dataclasses.replace(joint, positions="absolute")
    assert planned(absolute).method.rope.rule == "none"
    assert planned(absolute).describe()["method"]["rope"]["rule"] == "none"
    assert planned(absolute, rope={"rule": "none"}).method.rope.rule == "none"
    assert "absolute positions: no RoPE rule" in omitted(absolute)[0]


def test_a_rope_rule_that_is_set_is_refused_where_there_is_no_rope(joint: ModelSpec) -> None:
    absolute = dataclasses.replace(joint, positions="absolute")
    with pytest.raises(BadConfig, match=r"rope.rule ntk: model embedded has absolute positions, no RoPE"):
        planned(absolute, rope={"rule": "ntk"})


def test_text_outside_the_sequence_is_never_copied(joint: ModelSpec) -> None:
    cross = dataclasses.replace(joint, text_attention="cross")
    assert planned(cross).last.copies.literal == 1
    assert "attends to its text apart" in omitted(cross)[0]
    with pytest.raises(BadConfig, match=r"text.copies grid: model embedded attends to its text apart"):
        planned(cross, text={"copies": "grid"})
