"""Omit from a recipe what a network has no place for, and refuse it where it was asked for by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from imax_dist.errors import BadConfig, BadValue
from imax_dist.geometry import ImageSize
from imax_dist.method.presets import Method
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.request import Request


def fit_method(method: Method, request: Request, spec: ModelSpec) -> Method:
    """``method`` without the parts ``spec`` cannot have, unless the request asks for them itself.

    A preset's RoPE rule falls away for absolute positions, its text copies where text has no positions or is
    not in the sequence. A region is painted from noise by a network that is shown what surrounds it.
    Raises BadConfig if one of these was asked for itself.
    """
    given = request.method
    _check_scales(given, spec)
    if spec.context == "channels" and request.strength is None:
        method = dataclasses.replace(method, start=dataclasses.replace(method.start, strength=1.0))
    if spec.positions == "absolute" and method.rope.rule != "none":
        if _names(given, "rope", "rule"):
            raise BadConfig(
                f"rope.rule {method.rope.rule}: model {spec.name} has absolute positions, no RoPE to scale; "
                "omit rope.rule, projected flow and the time shift work without it"
            )
        method = dataclasses.replace(method, rope=dataclasses.replace(method.rope, rule="none"))
    if spec.positions == "absolute" and method.text.copies == "grid":
        if _names(given, "text", "copies"):
            raise BadConfig(
                f"text.copies grid: the text of model {spec.name} has no positions to place copies at; "
                "omit text.copies, or let each text token count for several with text.copies shared"
            )
        method = dataclasses.replace(method, text=dataclasses.replace(method.text, copies="none"))
    if spec.text_attention == "cross" and method.text.copies != "none":
        if _names(given, "text", "copies"):
            raise BadConfig(
                f"text.copies {method.text.copies}: model {spec.name} attends to its text apart, "
                "there are no text tokens in the sequence to copy; omit text.copies"
            )
        method = dataclasses.replace(method, text=dataclasses.replace(method.text, copies="none"))
    return method


def _check_scales(given: Mapping[str, Any], spec: ModelSpec) -> None:
    """Raise BadConfig for a guidance scale that nothing would read."""
    own = given.get("guidance_scale")
    asked = [own.get(one) for one in ("native", "extrapolated")] if isinstance(own, Mapping) else []
    found = [scale for scale in asked if scale not in (None, 1.0)]
    if found and spec.guidance == "none":
        raise BadConfig(
            f"guidance_scale {found[0]}: model {spec.name} has its guidance trained in and takes no scale; "
            "omit guidance_scale, or take the model before its distillation"
        )


def check_editor(request: Request, spec: ModelSpec) -> None:
    """Raise BadValue for a picture or a region that the network has no use for, or lacks."""
    if request.edit and spec.context != "tokens":
        raise BadValue(
            f"edit: model {spec.name} does not take a whole picture as input; take an editor "
            "(flux-kontext), or omit edit: it then replaces the native picture"
        )
    if spec.context == "channels" and request.region is None:
        raise BadValue(f"model {spec.name} only repaints regions; use imax redo --region")
    if spec.needs_picture and request.guide is None:
        raise BadValue(f"model {spec.name} edits pictures; give one with --guide and add --edit")


def check_reach(size: ImageSize, spec: ModelSpec, *, shifted: bool) -> None:
    """Raise BadValue if ``size`` has more tokens along a side than the network has positions for.

    ``shifted`` steps (patch shift) need one more.
    """
    if spec.largest_side is None:
        return
    side = max(size.width, size.height) // spec.token_pixels + shifted
    if side > spec.largest_side:
        pixels = (spec.largest_side - shifted) * spec.token_pixels
        extra = ", one of them for patch_shift" if shifted else ""
        raise BadValue(
            f"size {size}: model {spec.name} has positions for {spec.largest_side} tokens a side, but this "
            f"size needs {side}{extra}; its sides end at {pixels} px"
        )


def omitted(spec: ModelSpec) -> list[str]:
    """What of the method does not apply to this network, a sentence each."""
    sentences = []
    if spec.positions == "absolute":
        sentences.append(
            f"{spec.name} has absolute positions: no RoPE rule and no text copies at places, the rest of the "
            "method applies"
        )
    if spec.text_attention == "cross":
        sentences.append(f"{spec.name} attends to its text apart: no text copies")
    return sentences


def check_token_counts(tokens: Sequence[int], ranks: int) -> None:
    """Raise BadConfig if a pass, each with its image ``tokens``, has fewer of them than ranks to share it."""
    fewest = min(tokens, default=ranks)
    if fewest < ranks:
        raise BadConfig(
            f"parallel: a pass of this poster has {fewest} image tokens, which cannot be split over {ranks} "
            f"ranks; start at most {fewest}, or ask for a larger size"
        )


def check_cfg_execution(cfg: str, spec: ModelSpec, scale: float) -> None:
    """Raise BadConfig where half of the ranks would have no prompt to compute with."""
    if cfg != "split":
        return
    if spec.guidance != "classifier_free":
        own = "takes its scale as an input" if spec.guidance == "distilled" else "has its guidance trained in"
        raise BadConfig(
            f"parallel: cfg split needs classifier-free guidance; {spec.name} {own}; "
            "omit cfg, all ranks then share the sequence"
        )
    if scale == 1.0:
        raise BadConfig(
            f"parallel: cfg split has no second prompt to compute: the guidance scale of {spec.name} is 1; "
            "omit cfg, all ranks then share the sequence"
        )


def _names(given: Mapping[str, Any], part: str, switch: str) -> bool:
    """Whether the request itself names a switch, to anything but none."""
    own = given.get(part)
    return isinstance(own, Mapping) and own.get(switch) not in (None, "none")
