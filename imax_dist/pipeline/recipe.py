"""The recipe: all that is needed to make the same bits again, as JSON values."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from imax_dist.errors import BadManifest
from imax_dist.models.base import FlowModel
from imax_dist.output.image.provenance import environment_in
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.ranks import Ranks
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method
from imax_dist.pipeline.vae_runner import strategy_for
from imax_dist.settings_mapping import from_mapping, to_mapping
from imax_dist.version import __version__

FORMAT = "imax-recipe/1"
BEFORE = {"compile": "none", "native": "rank0", "made_on": []}
"""What was so when recipes did not say it yet."""
PLANNED = ("guide", "network")
"""Files whose hashes stand in the plan."""


def make_recipe(
    plan: PosterPlan, model: FlowModel, ranks: Ranks, made_on: Sequence[str] = ()
) -> dict[str, Any]:
    """Request, resolved plan, model, and the environment that decides the last bits.

    ``made_on`` are other ranks that have made a part of it.
    """
    return {
        "format": FORMAT,
        "request": to_mapping(plan.request),
        "plan": plan.describe(),
        "model": {
            "name": plan.spec.name,
            "source": plan.spec.settings.source,
            "revision": plan.spec.settings.revision,
            "weights_sha256": plan.spec.weights,
            "quantize": plan.spec.settings.quantize,
            "loras": [
                {"file": lora.file.name, "weight": lora.weight, "sha256": lora.sha256}
                for lora in plan.spec.loras
            ],
        },
        "environment": {
            **environment(model.device, ranks),
            "vae": strategy_for(plan, model, ranks).name,
            "made_on": list(made_on),
            **({"native": made_on[0]} if made_on else {}),
        },
    }


def environment(device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """Versions, device, threads and mesh: another set gives the same picture, perhaps not the same bits."""
    on_gpu = device.type == "cuda"
    return {
        "imax_dist": __version__,
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "ulysses": ranks.mesh.ulysses,
        "ring": ranks.mesh.ring,
        "text": ranks.settings.text,
        "engine": ranks.settings.engine,
        "cfg": ranks.settings.cfg,
        "kernel": ranks.settings.kernel,
        "quality": ranks.settings.quality,
        "native": "shared" if ranks.share_native else "rank0",
        "compile": "regional" if ranks.settings.compiles else "none",
    }


def request_of(recipe: dict[str, Any], *, where: str) -> Request:
    """The request of a recipe, with the switches it was made with, whatever its preset's name means now.

    Raises BadManifest if it is not one of ours, BadConfig for a wrong key.
    """
    if recipe.get("format") != FORMAT or not isinstance(recipe.get("request"), dict):
        raise BadManifest(f"{where} is not a recipe of this program ({FORMAT})")
    request = from_mapping(Request, recipe["request"], where=where)
    made_with = _section(recipe, "plan").get("method")
    if not isinstance(made_with, dict):
        return request
    replayed = dataclasses.replace(request, method=made_with)
    same = to_mapping(load_method(request)) == to_mapping(load_method(replayed))
    return request if same else replayed


def differences(recipe: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """``key: then -> now`` for everything around the render that could change its last bits."""
    then, model = environment_in(recipe), _section(recipe, "model")
    before, after = _section(recipe, "plan"), _section(now, "plan")
    weights = now["model"]["weights_sha256"]
    flat_then = {**BEFORE, **then, "weights": model.get("weights_sha256"), **_planned(before)}
    flat_now = {**now["environment"], "weights": weights, **_planned(after)}
    return [
        f"{key}: {flat_then.get(key)} -> {flat_now.get(key)}"
        for key in flat_now
        if flat_then.get(key) != flat_now.get(key)
    ]


def _planned(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: plan.get(f"{name}_sha256") for name in PLANNED}


def _section(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a recipe that may have been edited; empty if it is not an object."""
    section = recipe.get(name)
    return section if isinstance(section, dict) else {}
