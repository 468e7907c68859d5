"""Everything that is decided before the first step: sizes, noise levels, copies, scales.

A plan depends on the request and the model only, never on ranks, engine or device, so that these
cannot change the picture. Its fingerprint marks checkpoints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from imax_dist.config import fingerprint, to_mapping
from imax_dist.errors import BadValue
from imax_dist.events import CASCADE
from imax_dist.geometry import AxisScale, ImageSize, LatentGrid, native_size
from imax_dist.method.baselines.sdedit import remaining_sigmas
from imax_dist.method.cascade import cascade_scales
from imax_dist.method.guidance import SCHEDULES, GuidanceWeights, Step
from imax_dist.method.patch_shift import is_shifted
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS, Projection
from imax_dist.method.step_cache import STEP_CACHES, fewest_steps
from imax_dist.method.text_duplication import ORIGIN, TextCopies
from imax_dist.method.time_shift import shifted_sigmas, sigmas_from
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.fit import check_reach, fit_method
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.scales import guidance_scales, latent_grid, text_copies, time_shifts
from imax_dist.pipeline.switches import (
    check_start_levels,
    load_method,
    start_sigmas,
    uses_reference,
    why_unused,
)

DEFAULT_SCALE = 2
DECISIVE_SETTINGS = ("native_side", "text_tokens", "rope_factor")
"""Settings of a model that enter the picture besides those the plan holds by other names."""


@dataclass(frozen=True)
class PassPlan:
    """One sampling run, decided. Sizes are pixels, grids latent pixels, sigmas run from its start to 0."""

    request: Request
    spec: ModelSpec
    method: Method
    number: int
    """0: the native pass; the others are guided by the one before them, if by any."""
    name: str
    """Its stage: native, ``cascade 1`` ..., extrapolated."""
    size: ImageSize
    """What its picture is cropped to: the poster's, or all of ``render_size``."""
    render_size: ImageSize
    native_size: ImageSize
    sigmas: tuple[float, ...]
    guidance_scale: float
    copies: TextCopies
    reference_size: ImageSize | None = None
    """Of the picture before, which guides it."""
    reference_sigmas: tuple[float, ...] = ()
    """The sigmas the reference has latents for: 0, the image's, or those of the steps it was made in."""
    keeps_endpoints: bool = False
    """Whether the next pass wants the endpoint of each step."""

    @property
    def is_native(self) -> bool:
        return self.number == 0

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def constant_reference(self) -> bool:
        """Whether the finished picture of the pass before guides every step."""
        return self.reference_sigmas == (0.0,)

    @property
    def grid(self) -> LatentGrid:
        return latent_grid(self.render_size, self.spec)

    @property
    def scale(self) -> AxisScale:
        """Against native: positions, text copies and the time shift answer to what was trained."""
        return AxisScale.between(self.grid, latent_grid(self.native_size, self.spec))

    @cached_property
    def project(self) -> Projection:
        """P for this pass: the reference holds nothing above its own Nyquist frequency."""
        guidance = self.method.guidance
        reference = latent_grid(self.reference_size or self.native_size, self.spec)
        scale = AxisScale.between(self.grid, reference)
        return PROJECTIONS[guidance.projection](scale.divided(guidance.cutoff))

    def weights(self, step: Step) -> GuidanceWeights:
        """How hard ``step`` is pulled to the reference."""
        guidance = self.method.guidance
        return SCHEDULES[guidance.schedule](step).times(guidance.strength)

    @cached_property
    def skipped(self) -> frozenset[int]:
        """Indices of the steps at which the network's forward pass is skipped."""
        return frozenset() if self.is_native else STEP_CACHES[self.method.cache](self.steps)

    def shifted(self, index: int) -> bool:
        """Whether the step's forward pass runs on the shifted patch grid."""
        return not self.is_native and self.method.patch_shift is not False and is_shifted(index)

    def wholly_shifted(self, index: int) -> bool:
        """Whether all of the step does: low-pass, guidance and Euler step, too."""
        return self.method.patch_shift == "step" and self.shifted(index)


@dataclass(frozen=True)
class PosterPlan:
    """One poster, decided: its native pass, and the passes beyond native size."""

    request: Request
    spec: ModelSpec
    method: Method
    size: ImageSize
    """What was asked for; the render is cropped to it."""
    native: PassPlan
    passes: tuple[PassPlan, ...] = ()
    """Those of a cascade and the last one; empty at native size and below, where ``native`` is the poster."""
    guide: str | None = None
    """SHA-256 of the pixels that stand in for the native pass, if a picture was given."""
    network: str | None = None
    """SHA-256 of the network's file that enlarges the reference, if one does."""

    @property
    def extrapolates(self) -> bool:
        return bool(self.passes)

    @property
    def last(self) -> PassPlan:
        """The pass whose latents are the poster's."""
        return self.passes[-1] if self.passes else self.native

    @property
    def render_size(self) -> ImageSize:
        return self.last.render_size

    @property
    def native_size(self) -> ImageSize:
        return self.native.render_size

    @property
    def uses_native(self) -> bool:
        """Whether the first pass beyond native size needs a native image at all."""
        return uses_reference(self.method)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON values, for recipes, checkpoints and people."""
        native_scale, scale = guidance_scales(self.method, self.spec)
        copies = text_copies(self.method, self.spec, self.render_size, self.native_size)
        return {
            "size": str(self.size),
            "render_size": str(self.render_size),
            "native_size": str(self.native_size) if self.extrapolates else None,
            "scale": {"height": self.last.scale.height, "width": self.last.scale.width},
            "native_sigmas": list(self.native.sigmas),
            "sigmas": list(self.last.sigmas) if self.extrapolates else None,
            "cascade": [
                {"render_size": str(p.render_size), "sigmas": list(p.sigmas)} for p in self.passes[:-1]
            ],
            "guide_sha256": self.guide,
            "network_sha256": self.network,
            "guidance_scale": {"native": native_scale, "extrapolated": scale},
            "text_copies": {"offsets": list(map(list, copies.offsets)), "weight": copies.weight},
            "method": to_mapping(self.method),
            "model_settings": {name: getattr(self.spec.settings, name) for name in DECISIVE_SETTINGS},
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what makes the picture: prompt, seed, dtype, weights and the plan itself."""
        request = {name: getattr(self.request, name) for name in ("prompt", "seed", "dtype")}
        return fingerprint({**request, "weights": self.spec.weights, **self.describe()})


def make_plan(request: Request, spec: ModelSpec) -> PosterPlan:
    """Decide everything. Raises BadValue or BadConfig for what does not fit."""
    method = fit_method(load_method(request), request.method, spec)
    settings = spec.settings
    side = DEFAULT_SCALE * settings.native_side
    size = ImageSize.parse(request.size) if request.size else ImageSize(side, side)
    render_size = size.padded(spec.token_pixels)
    native_side = native_size(size, settings.native_side, spec.token_pixels)
    extrapolates = render_size != native_side
    check_reach(render_size, spec, shifted=method.patch_shift is not False and extrapolates)
    native_steps = request.native_steps or (None if extrapolates else request.steps) or settings.steps.native
    native = PassPlan(
        request,
        spec,
        method,
        number=0,
        name="native",
        size=native_side if extrapolates else size,
        render_size=native_side,
        native_size=native_side,
        sigmas=shifted_sigmas(native_steps, time_shifts(method, spec, 1.0)[0]),
        guidance_scale=guidance_scales(method, spec)[0],
        copies=ORIGIN,
        keeps_endpoints=extrapolates and method.reference.kind == "per_step",
    )
    plan = PosterPlan(request, spec, method, size, native, _passes(native, size) if extrapolates else ())
    _check_guide(plan)
    check_start_levels(request, len(plan.passes))
    _check_cache(plan)
    return plan


def _passes(native: PassPlan, poster: ImageSize) -> tuple[PassPlan, ...]:
    """The passes beyond native size, each with its own start and noise levels and the one before to guide it.

    Positions, text copies and the time shift follow the size of a pass against native, since they answer
    to what the network was trained at; the projection follows the pass before (``PassPlan.project``).
    """
    method, spec = native.method, native.spec
    steps = native.request.steps or spec.settings.steps.extrapolated
    starts = start_sigmas(method)
    sizes = _pass_sizes(native, poster.padded(spec.token_pixels))
    passes = [native]
    for number, size in enumerate(sizes, start=1):
        is_last, before = number == len(sizes), passes[-1]
        linear = AxisScale(size.height / native.size.height, size.width / native.size.width).linear
        levels = shifted_sigmas(steps, time_shifts(method, spec, linear)[1])
        sigmas = remaining_sigmas(levels, starts[min(number, len(starts)) - 1])
        if method.start.steps is not None:
            sigmas = sigmas_from(sigmas[0], method.start.steps, time_shifts(method, spec, linear)[1])
        one = dataclasses.replace(
            native,
            number=number,
            name="extrapolated" if is_last else CASCADE[number - 1],
            size=poster if is_last else size,
            render_size=size,
            sigmas=sigmas,
            guidance_scale=guidance_scales(method, spec)[1],
            copies=text_copies(method, spec, size, native.render_size),
            reference_size=before.render_size,
            reference_sigmas=_reference_sigmas(before, start=sigmas[0]),
            keeps_endpoints=native.keeps_endpoints and not is_last,
        )
        passes.append(one)
    return tuple(passes[1:])


def _pass_sizes(native: PassPlan, target: ImageSize) -> list[ImageSize]:
    """What the passes beyond native size render, smallest first; the last is ``target``."""
    spec, sizes = native.spec, []
    scale = AxisScale.between(latent_grid(target, spec), native.grid).linear
    for own in cascade_scales(native.method.cascade, scale) if uses_reference(native.method) else ():
        size = native_size(target, round(own * spec.settings.native_side), spec.token_pixels)
        if native.size.area < size.area < target.area and size not in sizes:
            sizes.append(size)
    return [*sizes, target]


def _reference_sigmas(before: PassPlan, *, start: float) -> tuple[float, ...]:
    """Of the steps of the pass ``before``: the last not below ``start`` and those after; a guide has none."""
    given = before.is_native and before.request.guide is not None
    if given or before.method.reference.kind == "constant":
        return (0.0,)
    made_by = before.sigmas[:-1]
    not_below = sum(sigma >= start for sigma in made_by)
    return made_by[max(not_below - 1, 0) :]


def _check_cache(plan: PosterPlan) -> None:
    """Raise BadValue if a step cache was asked for that would skip nothing in a poster of several passes."""
    tier, steps = plan.method.cache, plan.last.steps
    if tier == "none" or not plan.extrapolates or any(one.skipped for one in plan.passes):
        return
    short = f"skips none of {steps} steps: it needs {fewest_steps(STEP_CACHES[tier])}"
    raise BadValue(f"cache {tier} {short}; ask for more steps, or omit cache")


def _check_guide(plan: PosterPlan) -> None:
    """Raise BadValue if a guide was given that nothing could use."""
    if plan.request.guide is None:
        return
    reason = None
    if not plan.extrapolates:
        reason = f"{plan.size} is no larger than native {plan.native_size}; ask for a larger size"
    elif not plan.uses_native:
        reason = f"the recipe of preset {plan.request.preset} {why_unused(plan.method)}"
    elif plan.method.reference.kind == "per_step" and len(plan.passes) == 1:
        reason = "reference.kind per_step wants every step of a native pass; set it to constant"
    if reason is not None:
        raise BadValue(f"guide {plan.request.guide} cannot guide: {reason}")
