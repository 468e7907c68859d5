"""Everything that is decided before the first step: sizes, noise levels, copies, scales.

A plan depends on the request and the model only, never on ranks, engine or device, so that these
cannot change the picture. Its fingerprint marks checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imax_dist.config import choice, fingerprint, from_mapping, load_named, to_mapping
from imax_dist.errors import BadConfig
from imax_dist.geometry import AxisScale, ImageSize, LatentGrid, native_size
from imax_dist.method.baselines.sdedit import remaining_sigmas
from imax_dist.method.guidance import SCHEDULES, GuidanceWeights, Step
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS, Projection
from imax_dist.method.proportional_attention import LOGIT_FACTORS
from imax_dist.method.rope_rules import FREQUENCY_RULES
from imax_dist.method.text_duplication import COPY_RULES, TextCopies
from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.models.base import ModelSpec
from imax_dist.pipeline.fit import check_reach, fit_method
from imax_dist.pipeline.request import Request

DEFAULT_SCALE = 2
DECISIVE_SETTINGS = ("native_side", "text_tokens", "rope_factor")
"""Settings of a model that enter the picture besides those the plan holds by other names."""


@dataclass(frozen=True)
class RenderPlan:
    """One poster, decided. Sizes are pixels, grids latent pixels, sigmas run from 1 to 0."""

    request: Request
    spec: ModelSpec
    method: Method
    size: ImageSize
    """What was asked for; the render is cropped to it."""
    render_size: ImageSize
    native_size: ImageSize
    native_sigmas: tuple[float, ...]
    sigmas: tuple[float, ...]
    native_guidance_scale: float
    guidance_scale: float
    copies: TextCopies

    @property
    def extrapolates(self) -> bool:
        """False at native size and below, where the native pass is the poster."""
        return self.render_size != self.native_size

    @property
    def grid(self) -> LatentGrid:
        return self._grid(self.render_size)

    @property
    def native_grid(self) -> LatentGrid:
        return self._grid(self.native_size)

    @property
    def scale(self) -> AxisScale:
        return AxisScale.between(self.grid, self.native_grid)

    @property
    def project(self) -> Projection:
        guidance = self.method.guidance
        return PROJECTIONS[guidance.projection](self.scale.divided(guidance.cutoff))

    def weights(self, step: Step) -> GuidanceWeights:
        """How hard ``step`` is pulled to the reference."""
        guidance = self.method.guidance
        return SCHEDULES[guidance.schedule](step).times(guidance.strength)

    @property
    def uses_native(self) -> bool:
        """Whether the extrapolated pass needs a native image at all."""
        guided = self.method.guidance.schedule != "off" and self.method.guidance.strength != 0.0
        return guided or self.method.skip_residual or self.sigmas[0] < 1.0

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values, for recipes, checkpoints and people."""
        return {
            "size": str(self.size),
            "render_size": str(self.render_size),
            "native_size": str(self.native_size) if self.extrapolates else None,
            "scale": {"height": self.scale.height, "width": self.scale.width},
            "native_sigmas": list(self.native_sigmas),
            "sigmas": list(self.sigmas) if self.extrapolates else None,
            "guidance_scale": {
                "native": self.native_guidance_scale,
                "extrapolated": self.guidance_scale,
            },
            "text_copies": {"offsets": list(map(list, self.copies.offsets)), "weight": self.copies.weight},
            "method": to_mapping(self.method),
            "model_settings": {name: getattr(self.spec.settings, name) for name in DECISIVE_SETTINGS},
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what makes the picture: prompt, seed, dtype, weights and the plan itself."""
        made_of = {
            "prompt": self.request.prompt,
            "seed": self.request.seed,
            "dtype": self.request.dtype,
            "weights": self.spec.weights,
            **self.describe(),
        }
        return fingerprint(made_of)

    def _grid(self, size: ImageSize) -> LatentGrid:
        factor = self.spec.vae_factor
        return LatentGrid(height=size.height // factor, width=size.width // factor)


def make_plan(request: Request, spec: ModelSpec) -> RenderPlan:
    """Decide everything. Raises BadValue or BadConfig for what does not fit."""
    method = fit_method(load_method(request), request.method, spec)
    settings = spec.settings
    side = DEFAULT_SCALE * settings.native_side
    size = ImageSize.parse(request.size) if request.size else ImageSize(side, side)
    render_size = size.padded(spec.token_pixels)
    native = native_size(size, settings.native_side, spec.token_pixels)
    check_reach(render_size, spec, shifted=method.patch_shift and render_size != native)
    steps = request.steps or settings.steps.extrapolated
    native_steps = request.native_steps or (
        settings.steps.native if render_size != native else request.steps or settings.steps.native
    )
    linear_scale = AxisScale(render_size.height / native.height, render_size.width / native.width).linear
    native_shift, shift = _time_shifts(method, spec, linear_scale)
    native_guidance, guidance = _guidance_scales(method, spec)
    return RenderPlan(
        request=request,
        spec=spec,
        method=method,
        size=size,
        render_size=render_size,
        native_size=native,
        native_sigmas=shifted_sigmas(native_steps, native_shift),
        sigmas=_started(shifted_sigmas(steps, shift), method),
        native_guidance_scale=native_guidance,
        guidance_scale=guidance,
        copies=_text_copies(method, spec, render_size, native),
    )


def load_method(request: Request) -> Method:
    """The request's preset with its own switches laid over it. Raises BadConfig for a wrong one."""
    mapping = _overlay(load_named("presets", request.preset), request.method)
    method = from_mapping(Method, mapping, where=f"preset {request.preset}")
    choice("guidance.schedule", method.guidance.schedule, SCHEDULES)
    choice("guidance.projection", method.guidance.projection, PROJECTIONS)
    choice("rope.rule", method.rope.rule, FREQUENCY_RULES)
    choice("attention", method.attention, LOGIT_FACTORS)
    choice("text.copies", method.text.copies, COPY_RULES)
    _check_numbers(method)
    return method


def _check_numbers(method: Method) -> None:
    """Raise BadConfig for numbers a recipe cannot have."""
    rope, guidance = method.rope, method.guidance
    if rope.factor is not None and rope.factor <= 0.0:
        raise BadConfig(f"rope.factor must be above 0, got {rope.factor}")
    if not 0.0 <= rope.watershed <= 1.0:
        raise BadConfig(f"rope.watershed must be between 0 and 1, got {rope.watershed}")
    if guidance.cutoff <= 0.0:
        raise BadConfig(f"guidance.cutoff must be above 0, got {guidance.cutoff}")
    if guidance.cutoff != 1.0 and guidance.projection.startswith("haar_level"):
        raise BadConfig(
            f"guidance.cutoff {guidance.cutoff} has no meaning for {guidance.projection}, whose level is in "
            "its name; leave it at 1, or use matched_blocks"
        )
    for sigma in start_sigmas(method):
        if not 0.0 < sigma <= 1.0:
            raise BadConfig(f"start.sigma must be above 0 and at most 1, got {sigma}")


def start_sigmas(method: Method) -> tuple[float, ...]:
    """Where each stage starts; the last holds for all further ones. 1 is pure noise."""
    chosen = method.start.sigma
    if chosen is None:
        return (1.0,)
    return chosen if isinstance(chosen, tuple) else (chosen,)


def _started(sigmas: tuple[float, ...], method: Method, *, stage: int = 0) -> tuple[float, ...]:
    starts = start_sigmas(method)
    return remaining_sigmas(sigmas, starts[min(stage, len(starts) - 1)])


def _overlay(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if nested else value
    return merged


def _text_copies(method: Method, spec: ModelSpec, size: ImageSize, native: ImageSize) -> TextCopies:
    rule = COPY_RULES[method.text.copies]
    side = ImageSize(spec.settings.native_side, spec.settings.native_side)
    cell = side if method.text.cell == "square" else native
    tokens = (
        LatentGrid(s.height // spec.vae_factor, s.width // spec.vae_factor).tokens(spec.patch)
        for s in (size, cell)
    )
    return rule(*tokens)


def _time_shifts(method: Method, spec: ModelSpec, scale: float) -> tuple[float, float]:
    """Shift of the native and of the extrapolated pass. Raises BadConfig unless both are positive."""
    chosen = method.time_shift
    native = _first(chosen.native, spec.settings.native_shift)
    by_rule = native if chosen.rule == "native" else spec.settings.shift_factor * scale
    shifts = native, _first(chosen.extrapolated, by_rule)
    if min(shifts) <= 0.0:
        raise BadConfig(
            f"time_shift: shifts must be above 0, got native {shifts[0]} and extrapolated {shifts[1]}"
        )
    return shifts


def _guidance_scales(method: Method, spec: ModelSpec) -> tuple[float, float]:
    """Guidance scale of the native and of the extrapolated pass."""
    chosen, own = method.guidance_scale, spec.settings.guidance_scale
    native = _first(chosen.native, own.native)
    by_rule = native if chosen.rule == "native" else own.extrapolated
    return native, _first(chosen.extrapolated, by_rule)


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
