"""Everything that is decided before the first step: sizes, noise levels, copies, scales.

A plan depends on the request and the model only, never on ranks, engine or device, so that these
cannot change the picture. Its fingerprint marks checkpoints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from imax_dist.errors import BadValue
from imax_dist.events import CASCADE
from imax_dist.geometry import AxisScale, ImageSize, Region, native_size
from imax_dist.method.presets import Method
from imax_dist.method.step_cache import STEP_CACHES, fewest_steps
from imax_dist.method.text_duplication import ORIGIN
from imax_dist.method.time_shift import shifted_sigmas
from imax_dist.models.spec import ModelSpec
from imax_dist.output.image.guide import Placement, placed
from imax_dist.pipeline.fit import check_editor, check_reach, fit_method
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.scales import check_start, guidance_scales, pass_sigmas, text_copies, time_shifts
from imax_dist.pipeline.sizes import pass_sizes, poster_size
from imax_dist.pipeline.switches import (
    check_start_levels,
    load_method,
    uses_reference,
    why_unused,
)
from imax_dist.settings_mapping import fingerprint, to_mapping

DECISIVE_SETTINGS = ("native_side", "text_tokens", "rope_factor")
"""Settings of a model that enter the picture besides those the plan holds by other names."""


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
    placement: Placement | None = None
    """How the picture given, if any, fills the first pass's reference."""
    region: Region | None = None
    """What of that picture is rendered again, in its pixels; None: all of it."""
    guide: str | None = None
    """SHA-256 of the pixels of that picture, as placed."""
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
            "starts": [
                {"sigma": one.sigmas[0], "steps": one.steps, "kept": one.kept_share}
                for one in (self.passes if self.uses_native else ())
            ],
            "region": self.region and str(self.region),
            "guide_sha256": self.guide,
            "edit": self.request.edit,
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


def make_plan(request: Request, spec: ModelSpec, picture: ImageSize | None = None) -> PosterPlan:
    """Decide everything; ``picture`` is the size of the request's guide, if that is known here.

    Raises BadValue or BadConfig for what does not fit.
    """
    check_editor(request, spec)
    method = fit_method(load_method(request), request, spec)
    settings = spec.settings
    size = poster_size(request, spec, picture)
    render_size = size.padded(spec.token_pixels)
    native_side = native_size(size, settings.native_side, spec.token_pixels)
    extrapolates = render_size != native_side or request.starts_from_guide
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
    place = _placed(request, picture or native_side, size, render_size) if request.guide else None
    region = _region(request, size)
    plan = PosterPlan(request, spec, method, size, native, placement=place, region=region)
    if extrapolates:
        plan = dataclasses.replace(plan, passes=_passes(plan))
    _check_guide(plan)
    check_start_levels(request, len(plan.passes))
    _check_cache(plan)
    return plan


def _passes(plan: PosterPlan) -> tuple[PassPlan, ...]:
    """The passes after the native picture or the one given, each with its own start and noise levels.

    Positions, text copies and the time shift follow the size of a pass against native, since they answer
    to what the network was trained at; the projection follows the pass before (``PassPlan.project``).
    """
    method, spec, native, poster = plan.method, plan.spec, plan.native, plan.size
    steps = native.request.steps or spec.settings.steps.extrapolated
    given = native.request.starts_from_guide and plan.placement
    reference = given.size if given else native.render_size
    sizes = pass_sizes(method, spec, before=reference, target=poster.padded(spec.token_pixels))
    passes = [native]
    for number, size in enumerate(sizes, start=1):
        is_last, before = number == len(sizes), passes[-1]
        held = reference if before.is_native else before.render_size
        scale, enlargement = (
            AxisScale(size.height / one.height, size.width / one.width).linear for one in (native.size, held)
        )
        shift = time_shifts(method, spec, scale)[1]
        sigmas = pass_sigmas(method, number, steps=steps, shift=shift, enlargement=enlargement)
        check_start(native.request, method, sigmas, steps=steps, shift=shift)
        one = dataclasses.replace(
            native,
            number=number,
            name="extrapolated" if is_last else CASCADE[number - 1],
            size=poster if is_last else size,
            render_size=size,
            sigmas=sigmas,
            guidance_scale=guidance_scales(method, spec)[1],
            copies=text_copies(method, spec, size, native.render_size),
            reference_size=held,
            region=plan.region and plan.region.moved(*_margins(poster, size)),
            reference_sigmas=_reference_sigmas(before, start=sigmas[0]),
            keeps_endpoints=native.keeps_endpoints and not is_last,
        )
        passes.append(one)
    return tuple(passes[1:])


def _reference_sigmas(before: PassPlan, *, start: float) -> tuple[float, ...]:
    """Of the steps of the pass ``before``: the last not below ``start`` and those after; a guide has none."""
    given = before.is_native and before.request.starts_from_guide
    if given or before.method.reference.kind == "constant":
        return (0.0,)
    made_by = before.sigmas[:-1]
    not_below = sum(sigma >= start for sigma in made_by)
    return made_by[max(not_below - 1, 0) :]


def _region(request: Request, poster: ImageSize) -> Region | None:
    if request.region is None:
        return None
    region = Region.parse(request.region)
    region.require_inside(poster)
    return region


def _margins(poster: ImageSize, rendered: ImageSize) -> tuple[int, int]:
    """What is cut off on the left and above."""
    return (rendered.width - poster.width) // 2, (rendered.height - poster.height) // 2


def _placed(request: Request, picture: ImageSize, poster: ImageSize, rendered: ImageSize) -> Placement:
    try:
        return placed(picture, poster, rendered, fit=request.fit)
    except BadValue as error:
        raise BadValue(f"guide {request.guide}: {error}") from error


def _check_cache(plan: PosterPlan) -> None:
    """Raise BadValue if a step cache was asked for that would skip nothing in a poster of several passes."""
    tier, steps = plan.method.cache, plan.last.steps
    if tier == "none" or not plan.extrapolates or any(one.skipped for one in plan.passes):
        return
    short = f"skips none of {steps} steps: it needs {fewest_steps(STEP_CACHES[tier])}"
    raise BadValue(f"cache {tier} {short}; ask for more steps, or omit cache")


def _check_guide(plan: PosterPlan) -> None:
    """Raise BadValue if a guide was given that nothing could use."""
    if not plan.request.starts_from_guide:
        return
    reason = None
    if not plan.uses_native and plan.region is None and plan.spec.context == "none":
        reason = f"the recipe of preset {plan.request.preset} {why_unused(plan.method)}"
    elif plan.method.reference.kind == "per_step" and len(plan.passes) == 1:
        reason = "reference.kind per_step wants every step of a native pass; set it to constant"
    if reason is not None:
        raise BadValue(f"guide {plan.request.guide} cannot guide: {reason}")
