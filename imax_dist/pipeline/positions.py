"""The rotary table of a step: scaled frequencies and the attention factor, from the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from imax_dist.geometry import TokenGrid
from imax_dist.method.proportional_attention import LOGIT_FACTORS, SequenceLengths, fold_into_table
from imax_dist.method.rope import (
    FREQUENCY_RULES,
    Frequencies,
    RopeContext,
    base_frequencies,
    floored,
    rope_table,
)
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.shapes import RopeTable

ORIGIN = TextCopies(offsets=((0, 0),))


@dataclass
class PositionTables:
    """Tables of one pass, kept until a rule gives other frequencies for the same grid."""

    plan: RenderPlan
    model: FlowModel
    _made: dict[TokenGrid, tuple[Frequencies, RopeTable]] = field(default_factory=dict)

    def at(self, grid: TokenGrid, sigma: float) -> RopeTable:
        """The table of the joint sequence on ``grid`` at ``sigma``, attention factor folded in."""
        frequencies = scaled_frequencies(self.plan, grid, sigma)
        key = torch.cat(frequencies)
        if grid not in self._made or not torch.equal(self._made[grid][0], key):
            ids = self.model.position_ids(grid, self.plan.copies)
            factor = logit_factor(self.plan, grid)
            table = fold_into_table(rope_table(ids, frequencies), factor)
            self._made[grid] = key, on_device(table, self.model)
        return self._made[grid][1]


def native_table(plan: RenderPlan, model: FlowModel) -> RopeTable:
    """Positions as trained, for the native pass."""
    spec = plan.spec
    frequencies = [base_frequencies(dim, spec.rope_theta) for dim in spec.rope_axes]
    ids = model.position_ids(plan.native_grid.tokens(spec.patch), ORIGIN)
    return on_device(rope_table(ids, frequencies), model)


def scaled_frequencies(plan: RenderPlan, grid: TokenGrid, sigma: float) -> list[Frequencies]:
    """One set of frequencies per position axis: (text, row, column)."""
    settings, spec = plan.method.rope, plan.spec
    rule = FREQUENCY_RULES[settings.rule]
    rule = floored(rule) if settings.floor else rule
    factor = spec.settings.rope_factor if settings.factor is None else settings.factor
    scales = {
        "axes": (plan.scale.linear, plan.scale.height, plan.scale.width),
        "linear": (plan.scale.linear,) * 3,
        "joint": (joint_scale(plan, grid),) * 3,
    }[settings.scale]
    return [
        rule(dim, RopeContext(theta=spec.rope_theta, scale=scale, factor=factor, sigma=sigma))
        for dim, scale in zip(spec.rope_axes, scales, strict=True)
    ]


def joint_scale(plan: RenderPlan, grid: TokenGrid) -> float:
    """The authors' effective scale, which takes text copies for image: sqrt((L - one text) / L_native)."""
    lengths = sequence_lengths(plan, grid)
    image = lengths.image + lengths.text - lengths.text_once
    return math.sqrt(image / plan.spec.native_tokens**2)


def logit_factor(plan: RenderPlan, grid: TokenGrid) -> float:
    """The proportional attention's factor on every logit."""
    return LOGIT_FACTORS[plan.method.attention](sequence_lengths(plan, grid))


def sequence_lengths(plan: RenderPlan, grid: TokenGrid) -> SequenceLengths:
    """Token counts of the whole image on ``grid`` (which a shifted step makes one token larger)."""
    text = plan.spec.settings.text_tokens
    return SequenceLengths(
        image=grid.count,
        text=text * plan.copies.literal * plan.copies.weight,
        text_once=text,
        trained=plan.spec.native_tokens**2 + text,
        scale=plan.scale.linear,
    )


def on_device(table: RopeTable, model: FlowModel) -> RopeTable:
    """The float64 table in the precision that rotates: float32, or float64 for float64 weights."""
    precision = torch.promote_types(model.dtype, torch.float32)
    return RopeTable(*(part.to(model.device, precision) for part in table))
