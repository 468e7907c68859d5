"""The switches of a request's recipe: its preset with the request's own laid over it, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from imax_dist.config import choice, load_config
from imax_dist.errors import BadConfig, BadValue
from imax_dist.events import MOST_PASSES
from imax_dist.method.cascade import CascadeRule
from imax_dist.method.guidance import SCHEDULES
from imax_dist.method.presets import Method
from imax_dist.method.projection import PROJECTIONS
from imax_dist.method.proportional_attention import LOGIT_FACTORS
from imax_dist.method.rope_rules import FREQUENCY_RULES
from imax_dist.method.step_cache import STEP_CACHES
from imax_dist.method.strength import resemblance_cutoff
from imax_dist.method.text_duplication import COPY_RULES
from imax_dist.pipeline.request import MOST_STEPS, Request
from imax_dist.settings_mapping import from_mapping
from imax_dist.wording import plural

FIXED_CUTOFF = "haar_level"
"""Projections whose names begin so have their level in the name."""


REGION_STRENGTH = 0.6
BY_STRENGTH = "constant"
"""The schedule where passes start by strength: the picture's band is held, and nothing else pulled to it."""
DECIDE_METHOD = ("preset", "method", "steps", "strength", "resemblance", "region")
"""Fields of a request that its switches follow from."""


def load_preset(name: str) -> dict[str, Any]:
    """A preset's switches by name or path; an old name (``same_as``) stands for the one it names."""
    preset, _ = load_config("presets", name)
    renamed = preset.get("same_as")
    return load_preset(str(renamed)) if renamed is not None else preset


def renamed(name: str) -> str | None:
    """What to say to who asks for a preset by an old name; None for any other."""
    preset, _ = load_config("presets", name)
    if "same_as" not in preset or "was" not in preset:
        return None
    now = preset["same_as"]
    return f"{name} is {now} now; `--preset {now} --set {preset['was']}` is close to what it was"


def load_method(request: Request) -> Method:
    """The request's preset with its own switches laid over it. Raises BadConfig for a wrong one."""
    mapping = _overlay(_preset_of(request), request.method)
    method = _with_sliders(from_mapping(Method, mapping, where=f"preset {request.preset}"), request)
    choice("guidance.schedule", method.guidance.schedule, SCHEDULES)
    choice("guidance.projection", method.guidance.projection, PROJECTIONS)
    choice("rope.rule", method.rope.rule, FREQUENCY_RULES)
    choice("attention", method.attention, LOGIT_FACTORS)
    choice("text.copies", method.text.copies, COPY_RULES)
    choice("cache", method.cache, STEP_CACHES)
    _check_numbers(method)
    return method


def _preset_of(request: Request) -> dict[str, Any]:
    """The request's preset. Its number of steps below its start level holds for that level alone: a request
    that starts elsewhere, or says how many steps a whole pass has, runs those that fall below its level."""
    preset = load_preset(request.preset)
    own = request.method.get("start")
    by_strength = request.strength is not None or (
        isinstance(own, Mapping) and own.get("strength") is not None
    )
    elsewhere = names_start(request) or by_strength or request.region is not None
    if (elsewhere or request.steps is not None) and isinstance(preset.get("start"), Mapping):
        preset = {**preset, "start": {k: v for k, v in preset["start"].items() if k != "steps"}}
    return preset


def _with_sliders(method: Method, request: Request) -> Method:
    """The switches that ``strength`` and ``resemblance`` of a request stand for; they go before its own.

    A region is rendered again in one pass, by REGION_STRENGTH and with its layout free, unless they say more.
    """
    start, guidance = method.start, method.guidance
    strength, resemblance = request.strength, request.resemblance
    if request.region is not None:
        strength = REGION_STRENGTH if strength is None else strength
        resemblance = 0.0 if resemblance is None else resemblance
        method = replace(method, cascade="none", reference=replace(method.reference, upsample="pixels"))
    if strength is not None:
        start = replace(start, strength=strength)
    if resemblance is not None:
        fixed = guidance.projection.startswith(FIXED_CUTOFF)
        cutoff = guidance.cutoff if fixed else resemblance_cutoff(resemblance)
        guidance = replace(guidance, strength=resemblance, cutoff=cutoff)
    given = request.method.get("guidance")
    named = isinstance(given, Mapping) and given.get("schedule") is not None
    if start.strength is not None and guidance.schedule != "off" and not named:
        guidance = replace(guidance, schedule=BY_STRENGTH)
    return replace(method, start=start, guidance=guidance)


def _check_numbers(method: Method) -> None:
    """Raise BadConfig for numbers a recipe cannot have."""
    rope, guidance = method.rope, method.guidance
    if rope.factor is not None and rope.factor <= 0.0:
        raise BadConfig(f"rope.factor must be above 0, got {rope.factor}")
    if not 0.0 <= rope.watershed <= 1.0:
        raise BadConfig(f"rope.watershed must be between 0 and 1, got {rope.watershed}")
    if guidance.cutoff <= 0.0:
        raise BadConfig(f"guidance.cutoff must be above 0, got {guidance.cutoff}")
    if guidance.cutoff != 1.0 and guidance.projection.startswith(FIXED_CUTOFF):
        raise BadConfig(
            f"guidance.cutoff {guidance.cutoff} has no meaning for {guidance.projection}, whose level is in "
            "its name; leave it at 1, or use matched_blocks"
        )
    for sigma in start_sigmas(method):
        if not 0.0 < sigma <= 1.0:
            raise BadConfig(f"start.sigma must be above 0 and at most 1, got {sigma}")
    for name in ("steps", "min_steps"):
        if (steps := getattr(method.start, name)) is not None and not 1 <= steps <= MOST_STEPS:
            raise BadConfig(f"start.{name} must be 1 to {MOST_STEPS}, got {steps}")
    if method.start.strength is not None and not 0.0 <= method.start.strength <= 1.0:
        raise BadConfig(f"start.strength must be 0 to 1, got {method.start.strength}")
    if not 0.0 <= method.reference.acceleration <= 1.0:
        raise BadConfig(f"reference.acceleration must be 0 to 1, got {method.reference.acceleration}")
    _check_cascade(method.cascade)


def _check_cascade(rule: CascadeRule) -> None:
    if not isinstance(rule, tuple):
        return
    rising = all(below < above for below, above in pairwise((1.0, *rule)))
    if not rising or len(rule) > MOST_PASSES:
        raise BadConfig(
            f"cascade {list(rule)}: give up to {MOST_PASSES} scales against native, above 1 and rising, for "
            "example [2, 4], or doubling"
        )


def start_sigmas(method: Method) -> tuple[float, ...]:
    """Where each pass starts; the last holds for all further ones. 1 is pure noise.

    Raises BadConfig for an empty list.
    """
    if method.start.sigma == ():
        raise BadConfig("start.sigma is an empty list; give one level a pass, or none")
    chosen = method.start.sigma
    if chosen is None:
        return (1.0,)
    return chosen if isinstance(chosen, tuple) else (chosen,)


def names_start(request: Request) -> bool:
    """Whether the request itself says at which level its passes start."""
    given = request.method.get("start")
    return isinstance(given, Mapping) and given.get("sigma") is not None


def check_start_levels(request: Request, passes: int) -> None:
    """Raise BadValue if the request itself lists more start levels than its poster has passes, or names a
    level beside ``strength``."""
    given = request.method.get("start")
    levels = given.get("sigma") if isinstance(given, Mapping) else None
    replayed = isinstance(given, Mapping) and given.get("strength") is not None
    if request.strength is not None and levels is not None and not replayed:
        raise BadValue("strength and start.sigma both say where a pass starts; give one of the two")
    if isinstance(levels, list | tuple) and passes < len(levels):
        beyond = plural(passes, "pass", "passes") if passes else "no pass"
        listed = plural(len(levels), "level")
        raise BadValue(
            f"start.sigma lists {listed}, but {request.size or 'this size'} has {beyond} beyond native; "
            f"{'list one level a pass' if passes else 'omit it, or ask for a larger size'}"
        )


def uses_reference(method: Method) -> bool:
    """Whether anything in the recipe looks at a native image; without, there is no cascade either."""
    guidance = method.guidance
    guided = guidance.schedule != "off" and guidance.strength != 0.0
    started = any(sigma < 1.0 for sigma in start_sigmas(method))
    if method.start.strength is not None:
        started = method.start.strength < 1.0
    return guided or started or method.skip_residual or method.reference.acceleration != 0.0


def why_unused(method: Method) -> str:
    """Why ``uses_reference`` is False, and what to change."""
    off = "schedule is off" if method.guidance.schedule == "off" else "strength is 0"
    if method.start.strength is not None:
        return (
            f"uses no picture: strength is 1 (pure noise) and guidance.{off}; ask for less strength, "
            "or for more resemblance"
        )
    return (
        f"uses no native picture: start.sigma is 1 (pure noise) and guidance.{off}; set start.sigma below 1, "
        "or choose another preset"
    )


def _overlay(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if nested else value
    return merged
