"""Every switch of the method can be set alone, and each changes the picture where it has a say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imax_dist.method.presets import Method
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_ranks
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from imax_dist.settings_mapping import to_mapping

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
ALONE = Topology.alone()


SWITCHES: list[tuple[str, dict[str, Any]]] = [
    ("cascade", {"cascade": [1.5]}),
    ("guidance.schedule", {"guidance": {"schedule": "constant"}}),
    ("guidance.strength", {"guidance": {"strength": 0.5}}),
    ("guidance.projection", {"guidance": {"projection": "butterworth"}}),
    ("guidance.cutoff", {"guidance": {"cutoff": 0.5}}),
    ("reference.kind", {"reference": {"kind": "per_step"}}),
    ("reference.upsample", {"reference": {"upsample": "latents"}}),
    ("reference.posterior", {"reference": {"posterior": "sample"}}),
    ("reference.acceleration", {"reference": {"acceleration": 1.0}}),
    ("start.sigma", {"start": {"sigma": 0.7}}),
    ("start.steps", {"start": {"steps": 3}}),
    ("start.strength", {"start": {"strength": 0.7}}),
    ("start.min_steps", {"start": {"strength": 0.2, "min_steps": 2}}),  # by strength alone
    ("skip_residual", {"skip_residual": True}),
    ("rope.rule", {"rope": {"rule": "none"}}),
    ("rope.factor", {"rope": {"factor": 1.0}}),
    ("rope.floor", {"rope": {"floor": False}}),
    ("rope.watershed", {"rope": {"rule": "time_aware", "watershed": 0.6}}),  # another rule has no watershed
    ("rope.scale", {"rope": {"scale": "joint"}}),
    ("time_shift.rule", {"time_shift": {"rule": "native"}}),
    ("time_shift.native", {"time_shift": {"native": 1.0}}),
    ("time_shift.extrapolated", {"time_shift": {"extrapolated": 1.0}}),
    ("attention", {"attention": "off"}),
    ("text.copies", {"text": {"copies": "grid"}}),
    ("text.cell", {"text": {"cell": "square", "copies": "grid"}}),  # without copies there are no cells
    ("patch_shift", {"patch_shift": False}),
    ("guidance_scale.rule", {"guidance_scale": {"rule": "native"}}),
    ("guidance_scale.native", {"guidance_scale": {"native": 1.0}}),
    ("guidance_scale.extrapolated", {"guidance_scale": {"extrapolated": 3.0}}),
]


@pytest.fixture(scope="module")
def ranks(tiny: Any) -> Ranks:
    return join_ranks(ParallelSettings(), ALONE, heads=tiny.spec.heads)


@pytest.fixture(scope="module")
def latents_as_shipped(tiny: Any, ranks: Ranks) -> torch.Tensor:
    return latents(tiny, ranks, {})


def latents(tiny: Any, ranks: Ranks, method: dict[str, Any]) -> torch.Tensor:
    """A target of 2.5 x 1.5 native tokens a side in four steps."""
    request = Request(PROMPT, size="160x96", model=tiny.spec.name, preset="one_jump", method=method)
    return render_with(tiny, ranks, request).latents


def leaves(mapping: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in mapping.items():
        names += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def test_the_list_of_switches_is_complete() -> None:
    """All but those tested elsewhere: a network (test_upsample.py), cache (test_cached_steps.py), and vae,
    whose tiles are larger than these pictures."""
    elsewhere = {"reference.network", "cache", "vae"}
    known = leaves(to_mapping(Method()))
    assert [name for name, _ in SWITCHES] == [name for name in known if name not in elsewhere]
    assert elsewhere <= set(known)


@pytest.mark.parametrize(("name", "change"), SWITCHES, ids=[name for name, _ in SWITCHES])
def test_each_switch_alone_changes_the_picture(
    tiny: Any, ranks: Ranks, latents_as_shipped: torch.Tensor, name: str, change: dict[str, Any]
) -> None:
    """The same request gives the same bits, so that any difference is the switch's."""
    changed = latents(tiny, ranks, change)
    assert changed.shape == latents_as_shipped.shape
    assert (changed - latents_as_shipped).abs().max() > 1e-4


@pytest.mark.parametrize(
    "method",
    [
        {"reference": {"kind": "per_step"}},
        {"reference": {"upsample": "latents"}},
        {"reference": {"posterior": "sample"}},
        {"guidance": {"projection": "gaussian"}},
    ],
)
def test_without_guidance_nothing_about_the_reference_matters(
    tiny: Any, ranks: Ranks, method: dict[str, Any]
) -> None:
    off: dict[str, Any] = {"guidance": {"schedule": "off"}}
    merged = {**off, **method, "guidance": {**off["guidance"], **method.get("guidance", {})}}
    assert torch.equal(latents(tiny, ranks, off), latents(tiny, ranks, merged))


def test_at_native_size_no_switch_of_the_extrapolated_pass_matters(tiny: Any, ranks: Ranks) -> None:
    """One pass, as trained: presets differ only in the native time shift and guidance scale."""

    def native(preset: str) -> torch.Tensor:
        return render_with(tiny, ranks, Request(PROMPT, size="64x64", preset=preset)).latents

    assert torch.equal(native("imax"), native("direct"))
    assert torch.equal(native("imax"), native("paper"))
    assert not torch.equal(native("imax"), native("official"))


def test_the_same_request_gives_the_same_bits_twice(tiny: Any, ranks: Ranks) -> None:
    torch.manual_seed(0)
    first = latents(tiny, ranks, {})
    torch.manual_seed(1)
    assert torch.equal(first, latents(tiny, ranks, {}))
