"""Everything that is decided before the first step: sizes, noise levels, copies, scales.

A plan depends on the request and the model only, never on ranks, engine or device, so that these
cannot change the picture. Its fingerprint marks checkpoints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from imax_dist.config import fingerprint, to_mapping
from imax_dist.errors import BadConfig, BadValue
from imax_dist.geometry import AxisScale, ImageSize, LatentGrid, native_size
from imax_dist.method.baselines.sdedit import remaining_sigmas
from imax_dist.method.cascade import cascade_scales
from imax_dist.method.guidance import SCHEDULES, GuidanceWeights, Step
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS, Projection
from imax_dist.method.step_cache import STEP_CACHES, fewest_steps
from imax_dist.method.text_duplication import COPY_RULES, TextCopies
from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.fit import check_reach, fit_method
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method, start_sigmas, uses_reference

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
    earlier: tuple[RenderPlan, ...] = ()
    """The passes of a cascade before this one, smallest first; each is a plan of its own render size."""
    guide: str | None = None
    """SHA-256 of the pixels that stand in for the native pass, if a picture was given."""

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
    def passes(self) -> tuple[RenderPlan, ...]:
        """Every extrapolated pass; the last one is this plan itself."""
        return (*self.earlier, self)

    @property
    def reference_grid(self) -> LatentGrid:
        """The grid of what this pass is guided by: the pass before it, or the native one."""
        return self.earlier[-1].grid if self.earlier else self.native_grid

    @property
    def reference_sigmas(self) -> tuple[float, ...]:
        """The sigmas the reference has latents for: the image's, or those of the steps it was made in.

        Of the steps, the last not below the start of this pass and all after it: none before is looked at.
        """
        if self.method.reference.kind == "constant":
            return (0.0,)
        made_by = (self.earlier[-1].sigmas if self.earlier else self.native_sigmas)[:-1]
        not_below = sum(sigma >= self.sigmas[0] for sigma in made_by)
        return made_by[max(not_below - 1, 0) :]

    @property
    def project(self) -> Projection:
        """P for this pass: the reference holds nothing above its own Nyquist frequency."""
        guidance = self.method.guidance
        scale = AxisScale.between(self.grid, self.reference_grid)
        return PROJECTIONS[guidance.projection](scale.divided(guidance.cutoff))

    def weights(self, step: Step) -> GuidanceWeights:
        """How hard ``step`` is pulled to the reference."""
        guidance = self.method.guidance
        return SCHEDULES[guidance.schedule](step).times(guidance.strength)

    @property
    def skipped(self) -> frozenset[int]:
        """Indices of this pass's steps at which the network is not asked."""
        return STEP_CACHES[self.method.cache](len(self.sigmas) - 1) if self.extrapolates else frozenset()

    @property
    def uses_native(self) -> bool:
        """Whether the extrapolated pass needs a native image at all."""
        return uses_reference(self.method)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values, for recipes, checkpoints and people."""
        return {
            "size": str(self.size),
            "render_size": str(self.render_size),
            "native_size": str(self.native_size) if self.extrapolates else None,
            "scale": {"height": self.scale.height, "width": self.scale.width},
            "native_sigmas": list(self.native_sigmas),
            "sigmas": list(self.sigmas) if self.extrapolates else None,
            "cascade": [
                {"render_size": str(one.render_size), "sigmas": list(one.sigmas)} for one in self.earlier
            ],
            "guide_sha256": self.guide,
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
    last = RenderPlan(
        request=request,
        spec=spec,
        method=method,
        size=size,
        render_size=render_size,
        native_size=native,
        native_sigmas=shifted_sigmas(native_steps, native_shift),
        sigmas=shifted_sigmas(steps, shift),
        native_guidance_scale=native_guidance,
        guidance_scale=guidance,
        copies=_text_copies(method, spec, render_size, native),
    )
    plan = _in_passes(last, steps) if last.extrapolates else last
    _check_guide(plan)
    _check_cache(plan)
    return plan


def _check_cache(plan: RenderPlan) -> None:
    """Raise BadValue if a step cache was asked for that would skip nothing in a poster of several passes."""
    tier, steps = plan.method.cache, len(plan.sigmas) - 1
    if tier == "none" or not plan.extrapolates or any(one.skipped for one in plan.passes):
        return
    raise BadValue(
        f"cache {tier} skips none of {steps} steps: it needs {fewest_steps(STEP_CACHES[tier])}; ask for more "
        "steps, or leave cache out"
    )


def _check_guide(plan: RenderPlan) -> None:
    """Raise BadValue if a guide was given that nothing could use."""
    if plan.request.guide is None:
        return
    reason = None
    if not plan.extrapolates:
        reason = f"{plan.size} is no larger than native {plan.native_size}; ask for a larger size"
    elif not plan.uses_native:
        reason = f"the recipe of preset {plan.request.preset} uses no native picture; choose another"
    elif plan.method.reference.kind == "per_step" and not plan.earlier:
        reason = "reference.kind per_step wants every step of a native pass; set it to constant"
    if reason is not None:
        raise BadValue(f"guide {plan.request.guide} cannot guide: {reason}")


def _in_passes(last: RenderPlan, steps: int) -> RenderPlan:
    """``last`` with the passes of its cascade before it, each with its own start and noise levels.

    Positions, text copies and the time shift follow the size of a pass against native, since they answer
    to what the network was trained at; the projection follows the pass before (``RenderPlan.project``).
    """
    method, native, spec = last.method, last.native_size, last.spec
    sizes = []
    scales = cascade_scales(method.cascade, last.scale.linear) if last.uses_native else ()
    for own in scales:
        size = native_size(last.render_size, round(own * spec.settings.native_side), spec.token_pixels)
        if native.area < size.area < last.render_size.area and size not in sizes:
            sizes.append(size)
    starts = start_sigmas(method)
    passes: list[RenderPlan] = []
    for number, size in enumerate([*sizes, last.render_size]):
        linear = AxisScale(size.height / native.height, size.width / native.width).linear
        levels = shifted_sigmas(steps, _time_shifts(method, spec, linear)[1])
        one = dataclasses.replace(
            last,
            size=last.size if size == last.render_size else size,
            render_size=size,
            sigmas=remaining_sigmas(levels, starts[min(number, len(starts) - 1)]),
            copies=_text_copies(method, spec, size, native),
            earlier=tuple(passes),
        )
        passes.append(one)
    return passes[-1]


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
