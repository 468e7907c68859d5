"""Every settings file that ships loads, and every name in it is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from imax_dist.config import config_folder, load_yaml, named_configs
from imax_dist.method.guidance import SCHEDULES
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS
from imax_dist.method.proportional_attention import LOGIT_FACTORS
from imax_dist.method.rope_rules import FREQUENCY_RULES
from imax_dist.method.text_duplication import COPY_RULES
from imax_dist.pipeline.switches import load_preset
from imax_dist.settings_mapping import from_mapping, to_mapping

PRESETS = sorted(named_configs("presets"))
FILES = sorted(config_folder().rglob("*.yaml"))


def preset(name: str) -> Method:
    return from_mapping(Method, load_preset(name), where=f"configs/presets/{name}.yaml")


def test_the_four_recipes_ship() -> None:
    assert {"paper", "official", "imax", "direct"} <= set(PRESETS)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sdedit", {"start": {"sigma": 0.6}}),
        ("skip_residual", {"skip_residual": True}),
        ("time_aware", {"rope": {"rule": "time_aware", "factor": 1.0, "floor": False}}),
    ],
)
def test_a_baseline_differs_from_ours_in_its_guidance_alone(name: str, change: dict[str, Any]) -> None:
    ours = {**to_mapping(Method()), "guidance": {"schedule": "off"}}
    assert preset(name) == from_mapping(Method, {**ours, **change}, where="expected")


def test_hiflow_has_its_papers_numbers() -> None:
    """tau 0.6 and 0.3, alpha = beta = t / tau, D = 0.4 of the target's Nyquist: 0.8 of half its size's."""
    method = preset("hiflow")
    assert (method.cascade, method.start.sigma) == ("doubling", (0.6, 0.3))
    assert (method.guidance.schedule, method.reference.acceleration) == ("linear_sigma", 1.0)
    assert (method.guidance.projection, method.guidance.cutoff) == ("butterworth", 0.8)
    assert (method.reference.kind, method.time_shift.rule) == ("per_step", "native")


def test_dype_flow_is_ours_with_dypes_positions_and_temperature() -> None:
    method, alone = preset("dype_flow"), preset("dype")
    assert (method.rope, method.attention) == (alone.rope, alone.attention)
    assert dataclasses.replace(method, rope=Method().rope, attention=Method().attention) == Method()
    assert (alone.guidance.schedule, alone.time_shift.rule, alone.patch_shift) == ("off", "native", False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(config_folder())))
def test_every_file_is_yaml_with_keys(path: Path) -> None:
    assert load_yaml(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(config_folder())))
def test_every_file_begins_with_a_line_that_says_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_recipe_of_known_names(name: str) -> None:
    method = preset(name)
    assert method.guidance.schedule in SCHEDULES
    assert method.guidance.projection in PROJECTIONS
    assert method.rope.rule in FREQUENCY_RULES
    assert method.attention in LOGIT_FACTORS
    assert method.text.copies in COPY_RULES


def test_the_presets_are_different_recipes() -> None:
    assert len({preset(name) for name in PRESETS}) == len(PRESETS) - 1
    assert preset("imax_late") == preset("imax")


def test_one_jump_is_what_a_recipe_is_without_a_file() -> None:
    assert preset("one_jump") == Method()


def test_the_default_starts_each_pass_of_a_cascade_from_the_picture_before() -> None:
    start = dataclasses.replace(Method().start, sigma=0.45, steps=4)
    assert preset("imax") == dataclasses.replace(Method(), cascade="doubling", start=start)


def test_paper_does_only_what_the_text_says() -> None:
    method = preset("paper")
    assert (method.guidance.schedule, method.rope.rule) == ("paper", "ntk")
    assert (method.rope.floor, method.patch_shift) == (False, False)
    assert (method.time_shift.extrapolated, method.reference.posterior) == (None, "mean")


def test_official_has_the_authors_numbers() -> None:
    method = preset("official")
    assert (method.guidance.schedule, method.guidance.projection) == (
        "cosine_decay",
        "haar_level_1",
    )
    assert (method.rope.rule, method.rope.floor, method.rope.scale) == ("ntk_fixed", True, "joint")
    assert (method.time_shift.native, method.time_shift.extrapolated) == (3.0, 6.0)
    assert (method.attention, method.reference.posterior) == ("joint", "sample")
    assert (method.text.cell, method.patch_shift) == ("square", "step")


def test_direct_uses_no_part_of_the_method() -> None:
    method = preset("direct")
    assert (method.guidance.schedule, method.rope.rule, method.attention) == ("off", "none", "off")
    assert (method.text.copies, method.rope.floor, method.patch_shift) == ("none", False, False)
