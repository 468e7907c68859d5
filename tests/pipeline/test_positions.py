"""The rotary table of a step: FLUX's own at native size, scaled beyond, attention folded in."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from imax_dist.config import load_named
from imax_dist.geometry import TokenGrid
from imax_dist.method.rope import RopeContext, base_frequencies, rope_table
from imax_dist.method.rope_by_parts import yarn
from imax_dist.method.sega import Spectrum
from imax_dist.method.text_duplication import ORIGIN
from imax_dist.models.load import describe_model, load_model
from imax_dist.models.patches import joint_position_ids
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.positions import (
    PositionTables,
    joint_scale,
    logit_factor,
    scaled_frequencies,
    sequence_lengths,
)
from imax_dist.pipeline.request import Request
from imax_dist.settings_mapping import from_mapping


@pytest.fixture(scope="module")
def flux_dev() -> ModelSpec:
    """FLUX.1-dev's facts, without its weights."""
    settings = from_mapping(ModelSettings, load_named("models", "flux-dev"), where="flux-dev")
    embedded = describe_model("embedded")
    return dataclasses.replace(embedded, settings=settings, heads=24, head_dim=128, rope_axes=(16, 56, 56))


def plan(spec: ModelSpec, **fields: Any) -> PassPlan:
    return make_plan(Request(**{"prompt": "a red sun", **fields}), spec).last


def flux_own_table(axes: tuple[int, ...], grid: TokenGrid, text: int) -> tuple[Tensor, Tensor]:
    """What diffusers' FluxPosEmbed makes of the ids FluxPipeline gives it."""
    from diffusers import FluxPipeline
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    cpu, double = torch.device("cpu"), torch.float64
    image_ids = FluxPipeline._prepare_latent_image_ids(1, grid.height, grid.width, cpu, double)
    ids = torch.cat([torch.zeros(text, 3, dtype=double), image_ids])
    cos, sin = FluxPosEmbed(theta=10_000, axes_dim=list(axes))(ids)
    return cos, sin


def test_the_native_table_is_flux_own(tiny: Any) -> None:
    grid = TokenGrid(height=3, width=4)
    table = PositionTables(plan(tiny.spec, size="64x48"), tiny).at(grid, 1.0, 7)
    cos, sin = flux_own_table((4, 6, 6), grid, text=7)
    assert table.cos.dtype == torch.float32
    assert (table.cos - cos).abs().max() < 1e-6
    assert (table.sin - sin).abs().max() < 1e-6


def test_the_table_of_a_full_size_flux_is_its_own() -> None:
    grid = TokenGrid(height=64, width=64)
    frequencies = [base_frequencies(dim, 1e4) for dim in (16, 56, 56)]
    table = rope_table(joint_position_ids(grid, ORIGIN, text_tokens=512), frequencies)
    cos, sin = flux_own_table((16, 56, 56), grid, text=512)
    assert (table.cos - cos).abs().max() < 1e-5
    assert (table.sin - sin).abs().max() < 1e-5


def test_without_the_method_the_table_of_the_target_is_flux_own_too(tiny: Any) -> None:
    made = plan(tiny.spec, size="128x96", preset="direct")
    grid = TokenGrid(height=6, width=8)
    table = PositionTables(made, tiny).at(grid, 1.0, 7)
    cos, sin = flux_own_table((4, 6, 6), grid, text=7)
    assert (table.cos - cos).abs().max() < 1e-6
    assert (table.sin - sin).abs().max() < 1e-6


def test_the_authors_joint_scale_counts_text_copies(flux_dev: ModelSpec) -> None:
    """At 4096 px: 256^2 image tokens and 15 surplus copies of 512 make sqrt(17.875), not 4."""
    made = plan(flux_dev, size="4096x4096", preset="official")
    grid = made.grid.tokens(2)
    assert sequence_lengths(made, grid, 512) == (65_536, 16 * 512, 512, 4096 + 512, 4.0)
    assert joint_scale(made, grid, 512) == pytest.approx(4.2279, abs=1e-4)
    assert joint_scale(made, grid, 512) == pytest.approx(math.sqrt((65_536 + 15 * 512) / 4096), rel=1e-14)


def test_the_authors_attention_factor_counts_text_copies(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x4096", preset="official")
    expected = math.sqrt(math.log(65_536 + 16 * 512, 64**2 + 512))
    assert logit_factor(made, made.grid.tokens(2), 512) == pytest.approx(expected, rel=1e-14)


def test_our_attention_factor_counts_one_text(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x4096")
    expected = math.sqrt(math.log(65_536 + 512, 64**2 + 512))
    assert logit_factor(made, made.grid.tokens(2), 512) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("copies", ["grid", "shared"])
def test_shared_copies_count_as_many_tokens_as_literal_ones(flux_dev: ModelSpec, copies: str) -> None:
    made = plan(flux_dev, size="4096x4096", method={"text": {"copies": copies}})
    assert sequence_lengths(made, made.grid.tokens(2), 512).text == 16 * 512


def frequencies_of(made: PassPlan) -> list[Tensor]:
    return scaled_frequencies(made, made.grid.tokens(2), 1.0, 512)


def test_each_axis_is_scaled_by_its_own_factor(flux_dev: ModelSpec) -> None:
    """5008 x 1104 is guided by 2176 x 480: 2.3 times on both axes, but not by the same number."""
    made = plan(flux_dev, size="5008x1104")
    text, row, column = frequencies_of(made)
    assert torch.equal(text, base_frequencies(16, 1e4))  # this axis counts no rows or columns
    assert made.scale.height != made.scale.width
    for dim, scale, own in (
        (56, made.scale.height, row),
        (56, made.scale.width, column),
    ):
        base = base_frequencies(dim, 1e4)
        ntk = (2.5 * 1e4 * scale) ** (-torch.arange(0, dim, 2).double() / dim)
        assert torch.equal(own, torch.maximum(ntk, base / scale))


def test_the_papers_scale_is_one_for_all_axes(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="5008x1104", preset="paper")
    _, row, column = frequencies_of(made)
    assert torch.equal(row, column)
    assert torch.equal(row, (2.5e4 * made.scale.linear) ** (-torch.arange(0, 56, 2).double() / 56))


def test_the_authors_base_is_ten_times_floored_at_the_joint_scale(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x4096", preset="official")
    _, row, _ = frequencies_of(made)
    floor = base_frequencies(56, 1e4) / joint_scale(made, made.grid.tokens(2), 512)
    assert torch.equal(row, torch.maximum(base_frequencies(56, 1e5), floor))


def test_a_switch_replaces_the_models_own_factor(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x4096", method={"rope": {"factor": 1.0, "floor": False}})
    assert torch.equal(frequencies_of(made)[1], 4e4 ** (-torch.arange(0, 56, 2).double() / 56))


@pytest.mark.parametrize("rule", ["dype", "dype_ntk", "time_aware"])
def test_a_rule_that_follows_sigma_gets_it_and_tables_are_never_stale(tiny: Any, rule: str) -> None:
    made = plan(tiny.spec, size="128x96", method={"rope": {"rule": rule, "floor": False}})
    tables = PositionTables(made, tiny)
    early, late = tables.at(TokenGrid(6, 8), 1.0, 7), tables.at(TokenGrid(6, 8), 0.01, 7)
    assert (early.cos - late.cos).abs().max() > 0.01
    assert torch.equal(tables.at(TokenGrid(6, 8), 1.0, 7).cos, early.cos)


def test_parts_are_told_apart_by_the_trained_length_in_tokens(flux_dev: ModelSpec) -> None:
    made = plan(flux_dev, size="4096x2048", method={"rope": {"rule": "yarn", "floor": False}})
    _, row, column = frequencies_of(made)
    context = RopeContext(theta=1e4, scale=made.scale.height, factor=2.5, sigma=1.0, tokens=64)
    assert torch.equal(row, yarn(56, context))
    assert torch.equal(column, yarn(56, context._replace(scale=made.scale.width)))


@pytest.mark.parametrize("grid", [TokenGrid(6, 8), TokenGrid(7, 9)], ids=["plain", "shifted"])
def test_the_attention_factor_is_folded_into_cosines_and_sines(tiny: Any, grid: TokenGrid) -> None:
    """cos^2 + sin^2 of every channel is the factor of every logit."""
    made = plan(tiny.spec, size="128x96", method={"attention": "joint"})
    table = PositionTables(made, tiny).at(grid, 0.5, 7)
    expected = math.sqrt(math.log(grid.count + 7 * made.copies.literal, 16 + 7))
    assert table.cos.shape == (grid.count + 7 * made.copies.literal, 16)
    assert (table.cos**2 + table.sin**2 - expected).abs().max() < 1e-5


def test_tables_are_made_once_a_grid_and_come_from_the_whole_image(tiny: Any) -> None:
    tables = PositionTables(plan(tiny.spec, size="128x96"), tiny)
    plain, shifted = tables.at(TokenGrid(6, 8), 1.0, 7), tables.at(TokenGrid(7, 9), 0.9, 7)
    assert tables.at(TokenGrid(6, 8), 0.8, 7) is plain
    assert shifted.cos.shape[0] == plain.cos.shape[0] - 48 + 63


def test_segas_spectrum_is_taken_once_for_all_prompts_of_a_step(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(1, 16, 12, 16, generator=torch.Generator().manual_seed(1))
    tables, grid = (
        PositionTables(plan(tiny.spec, size="128x96", method={"attention": "sega"}), tiny),
        TokenGrid(6, 8),
    )
    expected = Spectrum.of(latents)
    taken = []
    monkeypatch.setattr(Spectrum, "of", lambda x: taken.append(x) or expected)
    of_step = tables.of_step(grid, 0.5, latents)
    prompt, empty = of_step(7), of_step(3)
    assert len(taken) == 1
    assert torch.equal(prompt.cos, tables.at(grid, 0.5, 7, spectrum=lambda: expected).cos)
    assert len(prompt.cos) == len(empty.cos) + 4
    tables.of_step(grid, 0.4, latents)(7)
    assert len(taken) == 2


def test_text_copies_sit_at_their_cells(tiny: Any) -> None:
    made = plan(tiny.spec, size="128x128", preset="paper")
    ids = tiny.position_ids(TokenGrid(8, 8), made.copies, text_tokens=7)
    assert ids[:28].unique_consecutive(dim=0).tolist() == [[0, 0, 0], [0, 0, 4], [0, 4, 0], [0, 4, 4]]
    assert ids[28:].tolist() == [[0, row, column] for row in range(8) for column in range(8)]


@pytest.mark.parametrize(("dtype", "expected"), [("float64", torch.float64), ("bfloat16", torch.float32)])
def test_tables_keep_at_least_float32(tiny: Any, dtype: str, expected: torch.dtype) -> None:
    model = load_model(tiny.spec.name, device=torch.device("cpu"), dtype=dtype, with_text_encoders=False)
    made = plan(model.spec, size="64x64")
    assert PositionTables(made, model).at(TokenGrid(4, 4), 1.0, 7).cos.dtype == expected
