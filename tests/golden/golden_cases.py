"""What the golden file holds: posters by name, and how a render is reduced to a few numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from guidance_of import scales
from tiny_flux import TRAINED_FLUX

from imax_dist import Request, render
from imax_dist.config import named_configs
from imax_dist.models import tiny
from imax_dist.pipeline.renderer import Renderer
from imax_dist.pipeline.switches import load_preset

VALUES = Path(__file__).parent / "values.json"
PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
POSITIONS = 48
PRESETS = Path(__file__).parent / "presets.json"
"""The shipped presets as they were when their values were taken."""
FORMER: dict[str, dict[str, Any]] = {
    "fast": {"preset": "fast", "method": {"start": {"sigma": 0.3}}},
    "imax": {"preset": "imax", "method": {"start": {"sigma": 0.6}}},
    "official": {"preset": "official", "method": {"patch_shift": "network"}},
}
"""What presets once were: with a start level of its own a request runs all steps that fall below it."""
BY_PIXELS: dict[str, Any] = {"method": {"reference": {"upsample": "pixels"}}}
"""``quick`` as where its network, whose weights are not in the repository, is not installed."""
GUIDE = Path(__file__).parent / "guide.png"
EDITORS: dict[str, dict[str, Any]] = {
    "flux-kontext": {"guide": str(GUIDE), "edit": True},
    "flux-fill": {"guide": str(GUIDE), "region": "16,16,48,32", "size": "64x64"},
    "qwen-image-edit": {"guide": str(GUIDE), "edit": True},
    "qwen-image-edit-2511": {"guide": str(GUIDE), "edit": True},
}
"""Tiny networks that are shown a picture, and how they are asked."""
TINY = (*tiny.TINY, *tiny.EDITORS)
TWICE = {"size": "128x128"}
ODD = {"size": "146x101"}
"""Padded to 160x112, 10 x 7 tokens; shifted steps have 11 x 8."""
THREE_TIMES = {"size": "208x176"}
"""By way of twice native, 112 x 96."""
FOUR_TIMES = {"size": "256x256"}
"""By way of twice native: two doublings."""

EMBEDDED: dict[str, dict[str, Any]] = {
    **{
        f"preset {name}": {**TWICE, "preset": name, **(BY_PIXELS if name == "quick" else {})}
        for name in named_configs("presets")
    },
    "preset imax, 4x": {**FOUR_TIMES, "preset": "imax"},
    "preset fast, 3x": {**THREE_TIMES, "preset": "fast"},
    "former fast": {**TWICE, **FORMER["fast"]},
    "former imax": {**TWICE, **FORMER["imax"]},
    "former official": {**TWICE, **FORMER["official"]},
    "native": {"size": "64x64"},
    "odd size": ODD,
    "odd size, official": {**ODD, "preset": "official"},
    "odd size, former official": {**ODD, **FORMER["official"]},
    "cascade, former imax": {**THREE_TIMES, **FORMER["imax"]},
    "cascade, hiflow": {**THREE_TIMES, "preset": "hiflow"},
    "cascade by list": {**TWICE, "method": {"cascade": [1.3, 1.6], "start": {"sigma": [0.9, 0.7]}}},
    "cache light": {**TWICE, "steps": 9, "method": {"cache": "light"}},
    "cache strong": {**TWICE, "steps": 7, "method": {"cache": "strong"}},
    "cache in a cascade": {**TWICE, "steps": 8, "method": {"cascade": [1.5], "cache": "strong"}},
    "text copies grid": {**ODD, "method": {"text": {"copies": "grid"}}},
    "text copies shared": {**ODD, "method": {"text": {"copies": "shared"}}},
    "guide": {**TWICE, "guide": str(GUIDE)},
    "latents enlarged": {**TWICE, "method": {"reference": {"upsample": "latents"}}},
}
"""In the embedded model's architecture; presets as they ship."""
TRAINED = "trained weights"
TRAINED_REQUEST: dict[str, Any] = {
    "size": "256x256", "steps": 3, "native_steps": 2, "method": {"reference": {"upsample": "latents"}},
}  # fmt: skip
"""Its latents alone: its VAE is a link to the embedded model's, which may be trained again."""


def sampled(
    request: dict[str, Any], model: str, *, renderer: Renderer | None = None
) -> dict[str, list[float]]:
    """Render it in float64: numbers of its latents and, on rank 0, of its pixels.

    ``renderer`` keeps the model for the next one; without one it is loaded for this poster alone.
    """
    asked = {"preset": "one_jump", **request}
    make = render if renderer is None else renderer.render
    rendering = make(Request(PROMPT, seed=5, model=model, dtype="float64", **asked))
    found = {"latents": numbers(rendering.latents)}
    if rendering.pixels is not None:
        found["pixels"] = numbers(rendering.pixels)
    return found


def numbers(x: torch.Tensor) -> list[float]:
    """Its shape, mean, root mean square and POSITIONS values, first and last among them."""
    flat = x.double().flatten().cpu()
    places = torch.linspace(0, flat.numel() - 1, POSITIONS, dtype=torch.float64).long()
    return [*x.shape, float(flat.mean()), float(flat.square().mean().sqrt()), *flat[places].tolist()]


def trained() -> dict[str, list[float]]:
    """The golden latents of trained weights."""
    return {"latents": sampled(TRAINED_REQUEST, str(TRAINED_FLUX))["latents"]}


def tiny_request(name: str) -> dict[str, Any]:
    """Beyond native size, with a second prompt where a network takes one; its blocks as they were taken below
    1.5 times when the values were (DECISIONS 99)."""
    method = {**scales(name, native=2.0, extrapolated=3.0), "cascade": []}
    asked = {"size": "96x80", "steps": 3, "native_steps": 2, "method": method}
    return {**asked, **EDITORS.get(name, {})}


def golden() -> dict[str, dict[str, list[float]]]:
    """The file's content."""
    content: dict[str, dict[str, list[float]]] = json.loads(VALUES.read_text(encoding="utf-8"))
    return content


def shipped() -> dict[str, dict[str, Any]]:
    """What each file of ``configs/presets`` says now."""
    return {name: load_preset(name) for name in named_configs("presets")}


def recorded() -> dict[str, dict[str, Any]]:
    """What those files said when their golden values were taken."""
    content: dict[str, dict[str, Any]] = json.loads(PRESETS.read_text(encoding="utf-8"))
    return content
