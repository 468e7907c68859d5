"""Passes that one rank makes ahead of a poster: where the gang goes on, and that the picture is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from small_networks import save_rrdb
from tiny_flux import make_tiny_flux
from torch import Tensor

from imax_dist.errors import Preempted
from imax_dist.events import RenderEvent, StepDone
from imax_dist.models.load import load_model
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.proof import alone, render_proof, render_small
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.recipe import differences
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
GUIDE = str(Path(__file__).parents[1] / "golden" / "guide.png")
CASCADE = {"cascade": [2.0], "start": {"sigma": 0.8}}
HIFLOW = {**CASCADE, "reference": {"kind": "per_step", "acceleration": 1.0}}
WAY: dict[str, Any] = {"size": "160x144", "native_steps": 3, "steps": 4, "method": CASCADE}
"""By way of twice native."""
PICTURE = {"guide": GUIDE, "size": "200x150", "strength": 0.5, "native_steps": None, "method": {}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")
    return load_model(str(folder), device=torch.device("cpu"), dtype="float64")


def request_of(model: Any, **fields: Any) -> Request:
    return Request(PROMPT, model=model.spec.name, dtype="float64", **{**WAY, **fields})


def proof(model: Any, request: Request, folder: Path, **how: Any) -> tuple[list[Tensor], list[StepDone]]:
    """What it shows, and its steps."""
    shown: list[Tensor] = []
    steps: list[StepDone] = []

    def listen(event: RenderEvent) -> None:
        steps.extend([event] if isinstance(event, StepDone) else [])

    checkpoints = CheckpointFolder(folder, every=1)
    render_proof(model, request, checkpoints=checkpoints, show=shown.append, listen=listen, **how)
    return shown, steps


def go_on(topology: Topology, request: Request, folder: str | None, **parallel: Any) -> Any:
    """The final latents, and the stages in which steps were made."""
    stages: list[str] = []

    def listen(event: RenderEvent) -> None:
        stages.extend([event.stage] if isinstance(event, StepDone) else [])

    checkpoints = CheckpointFolder(Path(folder), resume="must") if folder else None
    settings = ParallelSettings(**parallel)
    rendering = render(request, topology=topology, parallel=settings, checkpoints=checkpoints, listen=listen)
    return rendering.latents.numpy(), stages


@pytest.mark.parametrize("fields", [{}, {"method": HIFLOW}, PICTURE], ids=["default", "endpoints", "picture"])
def test_a_poster_resumes_after_the_passes_made_ahead(
    model: Any, tmp_path: Path, fields: dict[str, Any]
) -> None:
    request = request_of(model, **fields)
    expected, stages = go_on(Topology.alone(), request, None)
    shown, steps = proof(model, request, tmp_path / "alone", passes=2)
    assert len(shown) == 1
    assert {step.stage for step in steps} == set(stages) - {"extrapolated"} > set()
    assert any(step.stage.startswith("cascade") for step in steps)
    again, none = proof(model, request, tmp_path / "alone", passes=2)
    assert (len(again), none) == (int("guide" in fields), []), "it is there"
    latents, left = go_on(Topology.alone(), request, str(tmp_path / "alone"))
    assert np.array_equal(latents, expected)
    assert set(left) == {"extrapolated"}


@pytest.mark.slow
def test_two_and_four_ranks_go_on_from_one_rank_s_passes(model: Any, tmp_path: Path) -> None:
    request = request_of(model)
    expected, _ = go_on(Topology.alone(), request, None)
    proof(model, request, tmp_path, passes=2)
    for world, parallel in ((2, {"ring": 2}), (4, {"ulysses": 2, "ring": 2})):
        for latents, stages in run_ranks(world, _resumed, request, str(tmp_path), parallel):
            assert np.abs(latents - expected).max() < 1e-10
            assert set(stages) <= {"extrapolated"}


def test_a_recipe_says_who_else_made_a_part_of_the_poster(model: Any, tmp_path: Path) -> None:
    """On ranks of another number the last bits differ, so making it anew must not claim them."""
    request = request_of(model)
    proof(model, request, tmp_path, passes=2)
    (recipe,) = run_ranks(2, _recipe, request, str(tmp_path))[:1]
    assert recipe["environment"]["made_on"] == ["1 rank, kernel cpu"]
    (whole,) = run_ranks(2, _recipe, request, None)[:1]
    assert whole["environment"]["made_on"] == []
    changed = [each.partition(":")[0] for each in differences(recipe, whole)]
    assert sorted(changed) == ["made_on", "native"]
    proof(model, request, tmp_path / "one", passes=2)
    assert _recipe(Topology.alone(), request, str(tmp_path / "one"))["environment"]["made_on"] == []


@pytest.mark.parametrize("engine", ["xfuser", "diffusers", "torch"])
def test_a_rank_by_itself_touches_no_groups_of_its_gang(model: Any, engine: str) -> None:
    """xfuser's are of the process: an engine made for one rank would put them in the gang's place."""
    settings = ParallelSettings(engine=engine, ulysses=2, ring=2, text="replicated", cfg="split")
    assert (alone(model, settings).settings.engine, alone(model, settings).mesh.size) == ("torch", 1)
    drafts = alone(model, ParallelSettings(engine="window", quality="draft"))
    assert drafts.settings.engine == "window"


def _recipe(topology: Topology, request: Request, folder: str | None) -> dict[str, Any]:
    checkpoints = CheckpointFolder(Path(folder), resume="must") if folder else None
    return render(request, topology=topology, checkpoints=checkpoints).recipe


def test_a_poster_without_native_guidance_has_nothing_to_begin_ahead(model: Any, tmp_path: Path) -> None:
    request = request_of(model, preset="direct", method={})
    assert proof(model, request, tmp_path, passes=2) == ([], [])


def _resumed(topology: Topology, request: Request, folder: str, parallel: dict[str, Any]) -> Any:
    return go_on(topology, request, folder, **parallel)


def test_the_last_pass_is_never_made_ahead(model: Any, tmp_path: Path) -> None:
    request = request_of(model)
    _, steps = proof(model, request, tmp_path, passes=9)
    assert "extrapolated" not in {step.stage for step in steps}
    one = request_of(model, size="96x96", method={})
    _, steps = proof(model, one, tmp_path / "one", passes=9)
    assert {step.stage for step in steps} == {"native"}


def test_a_pass_ahead_that_was_stopped_goes_on_in_its_middle(model: Any, tmp_path: Path) -> None:
    request, seen = request_of(model), [0]

    def stop() -> bool:
        seen[0] += 1
        return seen[0] > 4

    with pytest.raises(Preempted, match="cascade"):
        proof(model, request, tmp_path, passes=2, stop=stop)
    shown, steps = proof(model, request, tmp_path, passes=2)
    assert shown == [], "it was shown before"
    assert {step.stage for step in steps} == {"cascade 1"}
    latents, _ = go_on(Topology.alone(), request, str(tmp_path))
    assert np.array_equal(latents, go_on(Topology.alone(), request, None)[0])


def test_a_poster_by_a_network_resumes_from_its_proof(model: Any, tmp_path: Path) -> None:
    """Its plan, and so its checkpoints, name the network's hash."""
    network = str(save_rrdb(tmp_path / "small.safetensors", doublings=2))
    method = {"reference": {"upsample": "network", "network": network}}
    request = request_of(model, size="144x112", preset="quick", method=method)
    proof(model, request, tmp_path / "checkpoints")
    _, stages = go_on(Topology.alone(), request, str(tmp_path / "checkpoints"))
    assert set(stages) == {"extrapolated"}


def test_a_small_proof_of_a_poster_with_two_start_levels_starts_at_the_first(model: Any) -> None:
    """It has one pass, for which two levels would be refused."""
    shown: list[Tensor] = []
    for levels in ([0.6, 0.3], 0.6):
        method = {"cascade": "doubling", "start": {"sigma": levels}}
        render_small(model, request_of(model, size="256x256", method=method, steps=4), show=shown.append)
    assert shown[0].shape == (96, 96, 3)
    assert torch.equal(shown[0], shown[1])
