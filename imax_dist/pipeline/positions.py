"""The rotary table of a step: scaled frequencies and the attention factor, from the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.proportional_attention import (
    LOGIT_FACTORS,
    SequenceLengths,
    by_component,
    fold_into_table,
)
from imax_dist.method.rope import (
    Frequencies,
    RopeContext,
    base_frequencies,
    floored,
    rope_table,
)
from imax_dist.method.rope_rules import FREQUENCY_RULES, RULES_OF_TIME
from imax_dist.method.sega import Spectrum, component_factors, scaled_by_component
from imax_dist.models.base import FlowModel
from imax_dist.models.spec import Axis
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.shapes import Latents, PositionIds, RopeTable


class CachedTable(NamedTuple):
    """A grid's table, and what it was made of."""

    ids: PositionIds
    frequencies: list[Frequencies]
    table: RopeTable


@dataclass
class PositionTables:
    """Tables of one pass, one a grid; rules of time make another when their frequencies change.

    SEGA scales the grid's table by the latents of each step.
    """

    plan: PassPlan
    model: FlowModel
    _made: dict[tuple[TokenGrid, int], CachedTable] = field(default_factory=dict)

    def of_step(self, grid: TokenGrid, sigma: float, latents: Latents) -> Callable[[int], RopeTable]:
        """The tables of one step by text tokens; ``latents`` are the step's, of the whole image.

        What a table takes from the latents is computed once, however many prompts the step has.
        """
        return partial(self.at, grid, sigma, spectrum=cache(partial(Spectrum.of, latents)))

    def at(
        self,
        grid: TokenGrid,
        sigma: float,
        text_tokens: int,
        *,
        spectrum: Callable[[], Spectrum] | None = None,
    ) -> RopeTable:
        """The table of the joint sequence on ``grid`` at ``sigma``, attention factor folded in.

        ``text_tokens`` are those of one copy of the prompt at hand: not every model pads it. ``spectrum`` is
        that of the step's latents, for a factor that answers to them.
        """
        made = self._on(grid, sigma, text_tokens)
        if self.plan.is_native or LOGIT_FACTORS[self.plan.method.attention] is not by_component:
            return made.table
        assert spectrum is not None, "the sampler hands the latents of each step over"
        return scaled_by_component(made.table, self._factors(made, spectrum()))

    def _factors(self, made: CachedTable, spectrum: Spectrum) -> list[Tensor]:
        spec = self.plan.spec
        axes = [{"row": 2, "column": 3}.get(axis) for axis in spec.axes]
        scale = self.plan.scale.linear
        return component_factors(spectrum, made.frequencies, axes, patch=spec.patch, scale=scale)

    def _on(self, grid: TokenGrid, sigma: float, text_tokens: int) -> CachedTable:
        """The table before the latents of a step have their say."""
        key = grid, text_tokens
        made = self._made.get(key)
        if made is not None and not self._changes:
            return made
        frequencies = scaled_frequencies(self.plan, grid, sigma, text_tokens)
        if made is None or not _same(made.frequencies, frequencies):
            ids = self._ids(grid, text_tokens) if made is None else made.ids
            factor = logit_factor(self.plan, grid, text_tokens)
            table = fold_into_table(rope_table(ids, frequencies), factor)
            made = self._made[key] = CachedTable(ids, frequencies, on_device(table, self.model))
        return made

    @property
    def _changes(self) -> bool:
        """Whether the frequencies depend on sigma."""
        return not self.plan.is_native and self.plan.method.rope.rule in RULES_OF_TIME

    def _ids(self, grid: TokenGrid, text_tokens: int) -> PositionIds:
        """On the model's device, where the table is made too: a long one is never copied there."""
        ids = self.model.position_ids(grid, self.plan.copies, text_tokens=text_tokens)
        if self.plan.context == "tokens":
            ids = torch.cat([ids, self.model.context_ids(grid)])
        return ids.to(self.model.device)


def _same(before: list[Frequencies], now: list[Frequencies]) -> bool:
    """Both are on the CPU: no device is waited for."""
    return all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


def scaled_frequencies(plan: PassPlan, grid: TokenGrid, sigma: float, text_tokens: int) -> list[Frequencies]:
    """One set of frequencies per position axis: as trained in the native pass.

    Beyond native size those that count rows or columns are scaled by the rule.
    """
    if plan.is_native:
        return [base_frequencies(dim, plan.spec.rope_theta) for dim in plan.spec.rope_axes]
    settings, spec = plan.method.rope, plan.spec
    rule = FREQUENCY_RULES[settings.rule]
    rule = floored(rule) if settings.floor else rule
    factor = spec.settings.rope_factor if settings.factor is None else settings.factor
    linear, joint = plan.scale.linear, joint_scale(plan, grid, text_tokens)
    by_setting: dict[str, dict[Axis, float]] = {
        "axes": {"row": plan.scale.height, "column": plan.scale.width},
        "linear": {"row": linear, "column": linear},
        "joint": {"row": joint, "column": joint},
    }
    scales = by_setting[settings.scale]
    context = RopeContext(
        theta=spec.rope_theta,
        scale=linear,
        factor=factor,
        sigma=sigma,
        tokens=spec.native_tokens,
        watershed=settings.watershed,
    )
    return [
        rule(dim, context._replace(scale=scales[axis]))
        if axis in scales
        else base_frequencies(dim, spec.rope_theta)
        for dim, axis in zip(spec.rope_axes, spec.axes, strict=True)
    ]


def joint_scale(plan: PassPlan, grid: TokenGrid, text_tokens: int) -> float:
    """The authors' effective scale, which takes text copies for image: sqrt((L - one text) / L_native)."""
    lengths = sequence_lengths(plan, grid, text_tokens)
    image = lengths.image + lengths.text - lengths.text_once
    return math.sqrt(image / _pictures(plan) / plan.spec.native_tokens**2)


def logit_factor(plan: PassPlan, grid: TokenGrid, text_tokens: int) -> float:
    """The proportional attention's factor on every logit; 1 in the native pass."""
    if plan.is_native:
        return 1.0
    return LOGIT_FACTORS[plan.method.attention](sequence_lengths(plan, grid, text_tokens))


def sequence_lengths(plan: PassPlan, grid: TokenGrid, text_tokens: int) -> SequenceLengths:
    """Token counts of the whole image on ``grid`` (which a shifted step makes one token larger).

    Text that the image attends to apart (cross-attention) has no part in them.
    """
    text = text_tokens if plan.spec.text_attention == "joint" else 0
    return SequenceLengths(
        image=_pictures(plan) * grid.count,
        text=text * plan.copies.literal * plan.copies.weight,
        text_once=text,
        trained=_pictures(plan) * plan.spec.native_tokens**2 + text,
        scale=plan.scale.linear,
    )


def _pictures(plan: PassPlan) -> int:
    """Images in the sequence: with that which an editor is shown, two."""
    return 1 + (plan.context == "tokens")


def on_device(table: RopeTable, model: FlowModel) -> RopeTable:
    """The float64 table in the precision that rotates: float32, or float64 for float64 weights."""
    precision = torch.promote_types(model.dtype, torch.float32)
    return RopeTable(*(part.to(model.device, precision) for part in table))
