"""Skipped steps use the network's last velocity and everything else of the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks
from test_render_parallel import interrupt_after, latents_of, serial
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadConfig, BadValue
from imax_dist.events import RenderEvent, StageStarted, StepDone
from imax_dist.models.load import describe_model
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.request import Request


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model"))


def fields_of(tiny: str, tier: str = "strong", **method: Any) -> dict[str, Any]:
    """10 steps, of which strong skips 4, 5 (and light 6)."""
    return dict(
        prompt="a red sun", size="128x112", model=tiny, dtype="float64", steps=10, native_steps=1,
        preset="one_jump",
        method={"cache": tier, **method},
    )  # fmt: skip


def calls_and_latents(topology: Any, fields: dict[str, Any]) -> tuple[list[bool], int, np.ndarray]:
    """Which steps say they were skipped, how often the network ran in the target-size pass, the latents."""
    from imax_dist.models.networks.flux import FluxModel
    from imax_dist.pipeline.renderer import render

    skipped, calls = [], 0
    original = FluxModel.predict

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*arguments, **named)

    def listen(event: RenderEvent) -> None:
        nonlocal calls
        if isinstance(event, StageStarted) and event.stage == "extrapolated":
            calls = 0
        if isinstance(event, StepDone) and event.stage == "extrapolated":
            skipped.append(event.skipped)

    FluxModel.predict = counted  # type: ignore[method-assign]
    try:
        rendering = render(Request(**fields), topology=topology, listen=listen)
    finally:
        FluxModel.predict = original  # type: ignore[method-assign]
    return skipped, calls, rendering.latents.numpy()


def test_a_cached_poster_is_the_same_on_any_mesh_and_asks_the_network_less(tiny: str) -> None:
    fields = fields_of(tiny, guidance_scale={"rule": "per_pass", "extrapolated": 1.0})
    skipped, calls, expected = run_ranks(1, calls_and_latents, fields)[0]
    assert [index for index, one in enumerate(skipped) if one] == [4, 5]
    assert calls == 8
    exact = run_ranks(1, latents_of, {**fields, "method": {**fields["method"], "cache": "none"}}, {})[0]
    assert np.abs(exact - expected).max() > 1e-6
    for latents in run_ranks(4, latents_of, fields, dict(ulysses=2)):
        assert np.abs(latents - expected).max() < 1e-10


@pytest.mark.parametrize(
    ("step", "method"),
    [(5, {}), (6, {}), (6, {"reference": {"kind": "per_step", "acceleration": 1.0}})],
    ids=["before_a_skipped", "between_two", "between_two_accelerated"],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tiny: str, tmp_path: Path, step: int, method: dict[str, Any]
) -> None:
    """One native step comes first; steps 4 and 5 (from 0) are skipped."""
    fields = fields_of(tiny, **method)
    run_ranks(1, interrupt_after, fields, str(tmp_path), step)
    resumed = run_ranks(1, latents_of, fields, {}, str(tmp_path))[0]
    assert np.array_equal(resumed, serial(fields))


def test_too_few_steps_are_refused_and_native_size_has_nothing_to_skip() -> None:
    spec = describe_model("embedded")

    def plan(**fields: Any) -> Any:
        return make_plan(Request("a red sun", preset="one_jump", method={"cache": "light"}, **fields), spec)

    with pytest.raises(
        BadValue, match=r"cache light skips none of 8 steps: it needs 9; ask for more steps, o"
    ):
        plan(steps=8)
    assert plan(steps=9).last.skipped == {6}
    assert plan(size="64x64", steps=4).last.skipped == frozenset()
    with pytest.raises(BadConfig, match=r"cache: 'lite' is not known; did you mean 'light'\?"):
        make_plan(Request("a red sun", method={"cache": "lite"}), spec)


def test_a_cache_is_another_poster_and_in_its_recipe() -> None:
    spec = describe_model("embedded")
    plans = [
        make_plan(Request("a", preset="one_jump", method={"cache": tier}), spec) for tier in ("none", "light")
    ]
    assert plans[0].fingerprint != plans[1].fingerprint
    assert plans[1].describe()["method"]["cache"] == "light"
