"""Everything decided before the first step: sizes, noise levels, copies, the fingerprint."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from imax_dist.config import load_named
from imax_dist.errors import BadConfig, BadValue, ImaxError
from imax_dist.geometry import ImageSize
from imax_dist.method.guidance import Step
from imax_dist.models.load import describe_model
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.decode import decode
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.settings_mapping import from_mapping

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"


@pytest.fixture(scope="module")
def flux_dev() -> ModelSpec:
    """FLUX.1-dev's facts, without its weights."""
    settings = from_mapping(ModelSettings, load_named("models", "flux-dev"), where="flux-dev")
    return dataclasses.replace(
        describe_model("embedded"),
        name="flux-dev", settings=settings, heads=24, head_dim=128, rope_axes=(16, 56, 56),
        guidance="distilled",
    )  # fmt: skip


def plan(spec: ModelSpec, **fields: Any) -> PosterPlan:
    """In one jump from noise, unless a preset is named."""
    return make_plan(Request(**{"prompt": PROMPT, "preset": "one_jump", **fields}), spec)


@pytest.mark.parametrize(
    ("size", "render", "native"),
    [
        ("4096x4096", "4096x4096", "1024x1024"),
        ("4000x3000", "4000x3008", "1184x880"),
        ("4961x7016", "4976x7024", "864x1216"),
        ("8192x2048", "8192x2048", "2048x512"),
        ("1000x900", "1008x912", "1008x912"),
        ("17x16", "32x16", "32x16"),
    ],
)
def test_sizes_are_rendered_in_whole_tokens_and_guided_in_the_same_shape(
    flux_dev: ModelSpec, size: str, render: str, native: str
) -> None:
    made = plan(flux_dev, size=size)
    assert (str(made.size), str(made.render_size), str(made.native_size)) == (size, render, native)


def test_the_default_size_is_twice_native(flux_dev: ModelSpec) -> None:
    assert plan(flux_dev).size == ImageSize(2048, 2048)


@pytest.mark.parametrize("size", ["1024x1024", "512x2048", "640x480"])
def test_a_poster_no_larger_than_native_is_one_pass(flux_dev: ModelSpec, size: str) -> None:
    made = plan(flux_dev, size=size)
    assert not made.extrapolates
    assert made.describe()["sigmas"] is None
    assert made.describe()["native_size"] is None


def test_steps_of_a_single_pass_are_the_steps_asked_for(flux_dev: ModelSpec) -> None:
    assert len(plan(flux_dev, size="512x512", steps=7).native.sigmas) == 8
    larger = plan(flux_dev, size="2048x2048", steps=7)
    assert (len(larger.native.sigmas), len(larger.last.sigmas)) == (31, 8)
    assert len(plan(flux_dev, size="2048x2048", native_steps=5).native.sigmas) == 6


def test_height_and_width_have_their_own_scale(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4000x3000")
    assert made.last.scale.height == pytest.approx(3008 / 880)
    assert made.last.scale.width == pytest.approx(4000 / 1184)
    assert made.last.scale.linear == pytest.approx(math.sqrt(3008 * 4000 / (880 * 1184)))


@pytest.mark.parametrize("preset", ["one_jump", "paper", "official", "direct"])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_noise_levels_fall_from_exactly_one_to_exactly_zero(
    flux_dev: ModelSpec, preset: str, steps: int
) -> None:
    made = plan(flux_dev, size="4096x4096", preset=preset, steps=steps, native_steps=steps)
    for sigmas in (made.native.sigmas, made.last.sigmas):
        assert len(sigmas) == steps + 1
        assert (sigmas[0], sigmas[-1]) == (1.0, 0.0)
        assert all(later < earlier for earlier, later in pairwise(sigmas))


def shifted(sigma: float, shift: float) -> float:
    return shift * sigma / (1 + (shift - 1) * sigma)


@pytest.mark.parametrize(
    ("preset", "size", "native", "target"),
    [
        ("official", "4096x4096", 3.0, 6.0),
        ("official", "2048x2048", 3.0, 6.0),
        ("one_jump", "4096x4096", 3.0, 6.0),
        ("one_jump", "2048x2048", 3.0, 3.0),
        ("paper", "8192x2048", 3.0, 6.0),
        ("direct", "4096x4096", 3.0, 3.0),
    ],
)
def test_each_preset_has_its_time_shifts(
    flux_dev: ModelSpec, preset: str, size: str, native: float, target: float
) -> None:
    """The authors' code has 3 and 6 at every size, the paper 1.5 s."""
    made = plan(flux_dev, size=size, preset=preset, steps=10, native_steps=10)
    assert made.native.sigmas[5] == pytest.approx(shifted(0.5, native), rel=1e-12)
    assert made.last.sigmas[5] == pytest.approx(shifted(0.5, target), rel=1e-12)


@pytest.mark.parametrize(
    ("preset", "size", "literal", "weight"),
    [
        ("official", "4096x4096", 16, 1),
        ("official", "4096x2048", 8, 1),
        ("official", "1408x1408", 1, 1),
        ("paper", "4096x4096", 16, 1),
        ("paper", "4096x2048", 4, 1),
        ("imax", "4096x4096", 1, 1),
        ("direct", "4096x4096", 1, 1),
    ],
)
def test_each_preset_copies_the_text_its_own_way(
    flux_dev: ModelSpec, preset: str, size: str, literal: int, weight: int
) -> None:
    """2:1 is 1440x720 at native area: our cells keep that shape, the authors' are 1024 x 1024."""
    copies = plan(flux_dev, size=size, preset=preset).last.copies
    assert (copies.literal, copies.weight) == (literal, weight)


def test_shared_copies_are_one_that_counts_as_many(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x4096", method={"text": {"copies": "shared"}})
    assert (made.last.copies.literal, made.last.copies.weight) == (1, 16)


def test_sdedit_runs_the_end_of_the_schedule_and_the_plan_says_which(flux_dev: ModelSpec) -> None:
    whole = plan(flux_dev, size="2048x2048").last.sigmas
    made = plan(flux_dev, size="2048x2048", preset="sdedit")
    assert made.last.sigmas == (0.6, *(sigma for sigma in whole if sigma < 0.6))
    assert made.describe()["sigmas"] == list(made.last.sigmas)
    assert made.uses_native
    assert made.native.sigmas[0] == 1.0


def test_a_presets_steps_below_its_start_hold_for_that_start_alone(flux_dev: ModelSpec) -> None:
    """Whoever starts elsewhere, or says how many steps a whole pass has, gets the steps that fall there."""

    def steps(**fields: Any) -> list[int]:
        return [
            one.steps for one in plan(flux_dev, **{"size": "4096x4096", "preset": "imax", **fields}).passes
        ]

    assert steps() == [4, 4]
    assert steps(preset="fast") == [2, 2]
    assert plan(flux_dev, size="4096x4096", preset="imax").last.sigmas[0] == 0.45
    fallen = steps(method={"start": {"sigma": 0.45}})
    assert fallen[0] > fallen[1]
    assert steps(steps=60) > fallen
    assert min(steps(strength=0.3)) >= 4
    assert steps(method={"start": {"sigma": 0.6, "steps": 3}}) == [3, 3]
    assert steps(steps=60, method={"start": {"steps": 5}}) == [5, 5]
    assert steps(method={"start": {"sigma": 0.001, "steps": 2}}) == [2, 2]
    assert steps(method={"start": {"sigma": 0.07}}, size="2048x2048", steps=10) == [1]


@pytest.mark.parametrize(
    ("preset", "uses"),
    [("imax", True), ("skip_residual", True), ("direct", False), ("time_aware", False), ("dype", False)],
)
def test_a_recipe_without_a_reference_has_no_native_pass(
    flux_dev: ModelSpec, preset: str, uses: bool
) -> None:
    assert plan(flux_dev, preset=preset).uses_native is uses


def test_strength_and_cutoff_reach_the_step(flux_dev: ModelSpec) -> None:
    method = {"guidance": {"schedule": "constant", "strength": 0.25, "cutoff": 0.5}}
    made = plan(flux_dev, size="2048x2048", method=method)
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert made.last.weights(Step(0.5, 0, 1)) == (0.25, 0.0)
    means = x.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    assert torch.allclose(made.last.project(x)[:, :, ::4, ::4], means)


def test_a_cascade_is_one_plan_a_pass(flux_dev: ModelSpec) -> None:
    """Positions and time shift answer to native, the projection to the pass before."""
    method = {"cascade": "doubling", "start": {"sigma": [0.6, 0.3]}, "text": {"copies": "grid"}}
    made = plan(flux_dev, size="4096x2048", method=method, steps=10)
    first, last = made.passes
    assert last is made.last
    assert (str(first.render_size), str(last.render_size)) == ("2896x1456", "4096x2048")
    assert first.scale.linear == pytest.approx(2.0, rel=0.02)
    assert last.scale.linear == pytest.approx(2.83, rel=0.02)
    assert (first.reference_size, last.reference_size) == (first.native_size, first.render_size)
    assert (first.copies.literal, last.copies.literal) == (2, 4)
    for one, start in ((first, 0.6), (last, 0.3)):
        shift = 1.5 * one.scale.linear
        levels = [shifted(1 - index / 10, shift) for index in range(11)]
        assert one.sigmas == pytest.approx([start, *(level for level in levels if level < start)])
    told = made.describe()["cascade"]
    assert told == [{"render_size": "2896x1456", "sigmas": list(first.sigmas)}]


def test_a_reference_per_step_is_that_of_the_pass_before(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x4096", preset="hiflow")
    first, last = made.passes
    used = [sigma for sigma in made.native.sigmas if 0 < sigma < 0.6]
    assert first.reference_sigmas[1:] == tuple(used)
    assert first.reference_sigmas[0] >= 0.6
    assert last.reference_sigmas[0] >= 0.3 > last.reference_sigmas[1]
    assert last.reference_sigmas[-1] == first.sigmas[-2]
    whole = plan(flux_dev, size="4096x4096", method={"reference": {"kind": "per_step"}})
    assert whole.last.reference_sigmas == whole.native.sigmas[:-1]
    assert plan(flux_dev, size="4096x4096").last.reference_sigmas == (0.0,)


def test_a_cascade_of_a_poster_at_twice_native_is_one_jump(flux_dev: ModelSpec) -> None:
    for rule in ("doubling", [2.0, 3.0]):
        assert plan(flux_dev, size="2048x2048", method={"cascade": rule}).passes[:-1] == ()


def test_every_pass_but_the_first_has_noise_of_its_own(tiny: Any) -> None:
    one, two = plan(tiny.spec, size="256x256", method={"cascade": [2.0]}).passes
    alone = plan(tiny.spec, size="128x128").last
    assert torch.equal(pass_noise(one, tiny), pass_noise(alone, tiny))
    assert not torch.equal(pass_noise(two, tiny), pass_noise(plan(tiny.spec, size="256x256").last, tiny))


def test_guidance_scales_are_the_models_per_pass_unless_set(flux_dev: ModelSpec) -> None:
    def scales(**fields: Any) -> tuple[float, float]:
        made = plan(flux_dev, **fields)
        return made.native.guidance_scale, made.last.guidance_scale

    assert scales() == (3.5, 7.0)
    assert scales(preset="direct") == (3.5, 3.5)
    assert scales(method={"guidance_scale": {"extrapolated": 5}}) == (3.5, 5.0)
    assert scales(method={"guidance_scale": {"rule": "native", "native": 2}}) == (2.0, 2.0)


CHANGES: list[dict[str, Any]] = [
    {"prompt": PROMPT + "."},
    {"seed": 1},
    {"dtype": "float64"},
    {"size": "2048x1024"},
    {"size": "2047x2048"},
    {"steps": 29},
    {"native_steps": 29},
    {"preset": "paper"},
    {"method": {"patch_shift": False}},
    {"method": {"cascade": [1.5]}},
    {"method": {"rope": {"factor": 1.0}}},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_the_fingerprint_changes_with_all_that_makes_the_picture(
    flux_dev: ModelSpec, change: dict[str, Any]
) -> None:
    assert plan(flux_dev, **change).fingerprint != plan(flux_dev).fingerprint


@pytest.mark.parametrize("change", [{"native_side": 512}, {"text_tokens": 256}, {"rope_factor": 1.0}])
def test_the_fingerprint_changes_with_the_models_settings(
    flux_dev: ModelSpec, change: dict[str, Any]
) -> None:
    changed = dataclasses.replace(flux_dev, settings=dataclasses.replace(flux_dev.settings, **change))
    fields = {"size": "2048x2048", "preset": "direct"}
    assert plan(changed, **fields).fingerprint != plan(flux_dev, **fields).fingerprint


def test_the_fingerprint_changes_with_the_weights(flux_dev: ModelSpec) -> None:
    assert plan(dataclasses.replace(flux_dev, weights="0" * 64)).fingerprint != plan(flux_dev).fingerprint


def test_the_fingerprint_is_the_same_however_a_thing_was_asked_for(flux_dev: ModelSpec) -> None:
    """Names of things and defaults written out are not the picture; neither are ranks or engines."""
    plain = plan(flux_dev, size="2048x2048")
    written_out = plan(
        dataclasses.replace(flux_dev, name="my copy"), steps=30, native_steps=30, preset="one_jump",
        method={"attention": "one_text"},
    )  # fmt: skip
    assert plain.fingerprint == written_out.fingerprint
    assert not {"ulysses", "ring", "engine", "device", "ranks", "threads"} & set(plain.describe())


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"preset": "offical"}, BadConfig, r"preset 'offical' is not known; did you mean 'official'\?"),
        ({"method": {"rop": {}}}, BadConfig, r"preset one_jump: unknown key 'rop'; did you mean 'rope'\?"),
        ({"method": {"rope": {"rul": "none"}}}, BadConfig, r"rope: unknown key 'rul'; did you mean 'rule'\?"),
        ({"method": {"rope": {"rule": "ntkk"}}}, BadConfig, r"rope.rule: 'ntkk' is not known; did you mean"),
        ({"method": {"rope": 3}}, BadConfig, r"rope must hold keys, got 3"),
        (
            {"method": {"guidance": {"schedule": "papr"}}},
            BadConfig,
            r"guidance.schedule: 'papr' is not known; did you mean 'paper'\?",
        ),
        (
            {"method": {"guidance": {"projection": "gausian"}}},
            BadConfig,
            r"guidance.projection: 'gausian' is not known; did you mean 'gaussian'\?",
        ),
        (
            {"method": {"attention": "jont"}},
            BadConfig,
            r"attention: 'jont' is not known; did you mean 'joint",
        ),
        ({"method": {"text": {"copies": "gird"}}}, BadConfig, r"text.copies: 'gird' .* did you mean 'grid'"),
        ({"method": {"time_shift": {"native": -1}}}, BadConfig, r"shifts must be above 0, got native -1.0"),
        ({"method": {"time_shift": {"extrapolated": 0}}}, BadConfig, r"shifts must be .* extrapolated 0.0"),
        ({"method": {"rope": {"factor": -2}}}, BadConfig, r"rope.factor must be above 0, got -2.0"),
        ({"method": {"rope": {"watershed": 1.5}}}, BadConfig, r"rope.watershed must be .* got 1.5"),
        ({"method": {"guidance": {"cutoff": 0}}}, BadConfig, r"guidance.cutoff must be above 0, got 0.0"),
        (
            {"method": {"guidance": {"cutoff": 0.5, "projection": "haar_level_1"}}},
            BadConfig,
            r"guidance.cutoff 0.5 has no meaning for haar_level_1, .* use matched_blocks",
        ),
        ({"method": {"start": {"sigma": 0}}}, BadConfig, r"start.sigma must be above 0 .* got 0.0"),
        ({"method": {"start": {"sigma": [0.5, 1.5]}}}, BadConfig, r"start.sigma must be .* got 1.5"),
        ({"method": {"start": {"sigma": "half"}}}, BadConfig, r"start: sigma must be a number, got 'half'"),
        (
            {"method": {"start": {"sigma": [0.6, 0.3]}}, "size": "2048x2048"},
            BadValue,
            r"start.sigma lists 2 levels, but 2048x2048 has 1 pass beyond native; list one level a pass",
        ),
        (
            {"method": {"start": {"sigma": [0.6, 0.3]}}, "size": "1024x1024"},
            BadValue,
            r"lists 2 levels, but 1024x1024 has no pass beyond native; omit it, or ask for a larger size",
        ),
        (
            {"method": {"start": {"sigma": [0.6]}}, "size": "1024x1024"},
            BadValue,
            r"lists 1 level, but 1024x1024 has no pass beyond native; omit it, or ask for a larger size",
        ),
        ({"method": {"start": {"steps": 1001}}}, BadConfig, r"start.steps must be 1 to 1000, got 1001"),
        (
            {"method": {"start": {"sigma": 0.06}}, "size": "2048x2048", "steps": 10},
            BadValue,
            r"start.sigma 0.06 leaves no step to run: the last of 10 steps starts at 0.25; raise it",
        ),
        ({"method": {"start": {"steps": 0}}}, BadConfig, r"start.steps must be 1 to 1000, got 0"),
        ({"method": {"start": {"sigma": []}}}, BadConfig, r"start.sigma is an empty list; give one level"),
        ({"method": {"reference": {"acceleration": 2}}}, BadConfig, r"acceleration must be 0 to 1, got 2.0"),
        (
            {"method": {"cascade": "tripling"}},
            BadConfig,
            r"'tripling' is not a choice; did you mean 'doubling'",
        ),
        ({"method": {"cascade": [2, 2]}}, BadConfig, r"cascade \[2.0, 2.0\]: give up to 8 .* rising"),
        ({"method": {"cascade": [0.5]}}, BadConfig, r"cascade \[0.5\]: .* above 1 and rising"),
        ({"guide": "a.png", "preset": "direct"}, BadValue, r"preset direct uses no native picture"),
        (
            {"guide": "a.png", "method": {"reference": {"kind": "per_step"}}},
            BadValue,
            r"guide a.png cannot guide: reference.kind per_step .* set it to constant",
        ),
        ({"method": {"attention": ["joint", "yarn"]}}, BadConfig, r"attention must be text, got"),
        ({"size": "8x64"}, BadValue, r"the width is 8 px, but a side must be between 16 and 65536"),
        ({"size": "60000x60000"}, BadValue, r"size 60000x60000 has 3600 megapixels; at most 1000"),
        ({"size": "big"}, BadValue, r"size 'big' is not WIDTHxHEIGHT"),
        ({"steps": 0}, BadValue, r"steps 0 is outside 1 to 1000"),
        ({"native_steps": 1001}, BadValue, r"native_steps 1001 is outside 1 to 1000"),
        ({"seed": -1}, BadValue, r"seed -1 is outside 0 to 9223372036854775807"),
        ({"prompt": "  "}, BadValue, r"the prompt is empty; say what the poster shows"),
        ({"prompt": "x" * 8001}, BadValue, r"the prompt has 8001 characters; at most 8000 are read"),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_name(
    flux_dev: ModelSpec, fields: dict[str, Any], kind: type[ImaxError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        plan(flux_dev, **fields)


def changed_by(plan: PosterPlan) -> float:
    """How far the last pass's low-pass moves noise, against the noise."""
    grid = plan.last.grid
    noise = torch.randn(1, 1, grid.height, grid.width, generator=torch.Generator().manual_seed(0))
    return float((plan.last.project(noise) - noise).norm() / noise.norm())


@pytest.mark.parametrize("preset", ["imax", "one_jump"])
@pytest.mark.parametrize("scale", [1.125, 1.25, 1.4375, 2.9375])
def test_no_pass_is_held_to_all_of_its_reference(flux_dev: ModelSpec, preset: str, scale: float) -> None:
    """At 2.94 times the last pass of imax enlarges by 1.47."""
    side = round(1024 * scale)
    made = plan(flux_dev, size=f"{side}x{side}", preset=preset)
    assert changed_by(made) > 0.8
    step = Step(sigma=0.5, index=1, steps=8)
    assert made.last.weights(step).low + made.last.weights(step).full == pytest.approx(1.0)


def test_a_list_of_scales_of_ones_own_is_taken_at_its_word(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="2048x2048", method={"cascade": [1.625]})
    assert made.last.enlargement.height < 1.5
    assert changed_by(made) == 0.0


def decoded(made: Any, model: Any, latents: torch.Tensor) -> torch.Tensor:
    """What one rank decodes."""
    ranks = join_ranks(ParallelSettings(), Topology.alone(), heads=model.spec.heads)
    picture = decode(made, VaeRunner.for_plan(made, model, ranks), latents)
    assert picture is not None
    return picture.whole()


def test_the_surplus_of_the_render_size_is_cut_evenly_off_both_sides(tiny: Any) -> None:
    made = plan(tiny.spec, size="90x75")
    latents = torch.randn(1, 16, 10, 12, generator=torch.Generator().manual_seed(4))
    assert (made.last.grid.height, made.last.grid.width) == (10, 12)
    whole = (tiny.decode_image(latents)[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    assert torch.equal(decoded(made, tiny, latents), whole[2:77, 3:93])


def test_a_picture_that_is_not_finite_is_refused(tiny: Any) -> None:
    made = plan(tiny.spec, size="64x64", dtype="float32")
    with pytest.raises(ImaxError, match=r"numbers that are not finite in float32; use --dtype"):
        decoded(made, tiny, torch.full((1, 16, 8, 8), math.nan))
