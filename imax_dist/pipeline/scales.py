"""What follows from a pass's size: text copies, time shifts, noise levels; and its guidance scale."""

from __future__ import annotations

from imax_dist.errors import BadConfig, BadValue
from imax_dist.geometry import ImageSize, LatentGrid
from imax_dist.method.baselines.sdedit import remaining_sigmas
from imax_dist.method.presets import Method
from imax_dist.method.strength import start_level, strength_sigmas
from imax_dist.method.text_duplication import COPY_RULES, TextCopies
from imax_dist.method.time_shift import shifted_sigmas, sigmas_from
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import names_start, start_sigmas
from imax_dist.wording import plural


def latent_grid(size: ImageSize, spec: ModelSpec) -> LatentGrid:
    """The latent pixels of ``size``."""
    return LatentGrid(height=size.height // spec.vae_factor, width=size.width // spec.vae_factor)


def text_copies(method: Method, spec: ModelSpec, size: ImageSize, native: ImageSize) -> TextCopies:
    """Where a pass of ``size`` has copies of its text, and how much each counts."""
    rule = COPY_RULES[method.text.copies]
    side = ImageSize(spec.settings.native_side, spec.settings.native_side)
    cell = side if method.text.cell == "square" else native
    return rule(*(latent_grid(one, spec).tokens(spec.patch) for one in (size, cell)))


def time_shifts(method: Method, spec: ModelSpec, scale: float) -> tuple[float, float]:
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


def pass_sigmas(
    method: Method, number: int, *, steps: int, shift: float, enlargement: float
) -> tuple[float, ...]:
    """The noise levels of the pass ``number`` (from 1) that makes the picture before ``enlargement`` larger.

    ``steps`` are those of a whole pass from pure noise, ``shift`` is its time shift.
    """
    own = method.start
    if own.strength is not None:
        start = start_level(own.strength, enlargement)
        if own.steps is None or start == 0.0:
            return strength_sigmas(start, steps, shift, fewest=own.min_steps)
        return sigmas_from(start, own.steps, shift)
    starts = start_sigmas(method)
    start = starts[min(number, len(starts)) - 1]
    if own.steps is not None:
        return sigmas_from(start, own.steps, shift)
    return remaining_sigmas(shifted_sigmas(steps, shift), start)


def check_start(
    request: Request, method: Method, sigmas: tuple[float, ...], *, steps: int, shift: float
) -> None:
    """Raise BadValue if the request itself starts the pass of ``sigmas`` below a quarter of the last of its
    ``steps`` levels: by the schedule that is not a step. Between there and the last level one step is run."""
    if not names_start(request) or method.start.steps is not None or method.start.strength is not None:
        return
    last = shifted_sigmas(steps, shift)[-2]
    if sigmas[0] < last / 4:
        raise BadValue(
            f"start.sigma {sigmas[0]:g} leaves no step to run: the last of {plural(steps, 'step')} starts at "
            f"{last:.3g}; raise it to a quarter of that, or give start.steps, how many run"
        )


def guidance_scales(method: Method, spec: ModelSpec) -> tuple[float, float]:
    """Guidance scale of the native and of the extrapolated pass."""
    chosen, own = method.guidance_scale, spec.settings.guidance_scale
    native = _first(chosen.native, own.native)
    by_rule = native if chosen.rule == "native" else own.extrapolated
    return native, _first(chosen.extrapolated, by_rule)


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
