"""Leave out of a recipe what a network has no place for, and refuse it where it was asked for by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from imax_dist.errors import BadConfig
from imax_dist.method.presets import Method
from imax_dist.models.base import ModelSpec


def fit_method(method: Method, asked: Mapping[str, Any], spec: ModelSpec) -> Method:
    """``method`` without the parts ``spec`` cannot have; ``asked`` are the request's own switches.

    A preset's RoPE rule falls away for absolute positions, its text copies for text outside the sequence.
    Raises BadConfig if one of these was asked for itself.
    """
    if spec.positions == "absolute" and method.rope.rule != "none":
        if _asks(asked, "rope", "rule"):
            raise BadConfig(
                f"rope.rule {method.rope.rule}: model {spec.name} has absolute positions, no RoPE to scale; "
                "leave rope.rule out, projected flow and the time shift work without it"
            )
        method = dataclasses.replace(method, rope=dataclasses.replace(method.rope, rule="none"))
    if spec.text == "cross" and method.text.copies != "none":
        if _asks(asked, "text", "copies"):
            raise BadConfig(
                f"text.copies {method.text.copies}: model {spec.name} attends to its text apart, "
                "there are no text tokens in the sequence to copy; leave text.copies out"
            )
        method = dataclasses.replace(method, text=dataclasses.replace(method.text, copies="none"))
    return method


def left_out(spec: ModelSpec) -> list[str]:
    """What of the method does not apply to this network, a sentence each."""
    sentences = []
    if spec.positions == "absolute":
        sentences.append(f"{spec.name} has absolute positions: no RoPE rule, the rest of the method applies")
    if spec.text == "cross":
        sentences.append(f"{spec.name} attends to its text apart: no text copies")
    return sentences


def check_guidance_passes(cfg: str, spec: ModelSpec, scale: float) -> None:
    """Raise BadConfig where half of the ranks would have no prompt to compute with."""
    if cfg != "split":
        return
    if spec.guidance == "distilled":
        raise BadConfig(
            f"parallel: cfg split needs classifier-free guidance; {spec.name} takes its scale as an input; "
            "leave cfg out, all ranks then share the sequence"
        )
    if scale == 1.0:
        raise BadConfig(
            f"parallel: cfg split has no second prompt to compute: the guidance scale of {spec.name} is 1; "
            "leave cfg out, all ranks then share the sequence"
        )


def _asks(asked: Mapping[str, Any], part: str, switch: str) -> bool:
    """Whether the request itself names a switch, to anything but none."""
    own = asked.get(part)
    return isinstance(own, Mapping) and own.get(switch) not in (None, "none")
