"""What follows from a pass's size against native: text copies, time shifts; and its guidance scale."""

from __future__ import annotations

from imax_dist.errors import BadConfig
from imax_dist.geometry import ImageSize, LatentGrid
from imax_dist.method.presets import Method
from imax_dist.method.text_duplication import COPY_RULES, TextCopies
from imax_dist.models.spec import ModelSpec


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


def guidance_scales(method: Method, spec: ModelSpec) -> tuple[float, float]:
    """Guidance scale of the native and of the extrapolated pass."""
    chosen, own = method.guidance_scale, spec.settings.guidance_scale
    native = _first(chosen.native, own.native)
    by_rule = native if chosen.rule == "native" else own.extrapolated
    return native, _first(chosen.extrapolated, by_rule)


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
