"""Blocks compiled one by one: the same picture, a bounded number of graphs, engines left out of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from imax_dist.errors import BadConfig
from imax_dist.events import RenderEvent, StepDone
from imax_dist.models import compiled
from imax_dist.models.compiled import blocks_of, check_compilable, compile_blocks
from imax_dist.models.find import find_model
from imax_dist.models.load import load_model
from imax_dist.models.tiny import make_tiny
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.recipe import differences
from imax_dist.pipeline.render import Rendering, render_with
from imax_dist.pipeline.request import Request

CPU = torch.device("cpu")
ROUNDING = 1e-5
"""Of the latents' largest value."""


@pytest.mark.slow
def test_a_compiled_poster_is_the_eager_one_and_compiles_no_more_after_both_grids(tmp_path: Path) -> None:
    """Patch shift gives every second extrapolated step one token more a side."""
    folder = make_tiny("flux-dev", tmp_path / "model")
    model: Any = load_model(str(folder), device=CPU, dtype="float32")
    steps: dict[str, Any] = {"preset": "one_jump", "steps": 4, "native_steps": 2}
    request = Request("a red sun", size="96x80", model=str(folder), dtype="float32", **steps)
    graphs: list[int] = []

    def rendered(settings: ParallelSettings) -> Rendering:
        ranks = join_for(model, settings, Topology.alone())
        return render_with(model, ranks, request, listen=count)

    def count(event: RenderEvent) -> None:
        if isinstance(event, StepDone):
            graphs.append(counters["stats"]["unique_graphs"])

    names = list(model.transformer.state_dict())
    eager = rendered(ParallelSettings())
    assert graphs[-1] == 0

    compile_blocks(model, backend="eager")
    first = rendered(ParallelSettings(compile="regional"))
    assert 0 < graphs[6] < graphs[-1] <= 24  # graphs of 6 eager steps, then native, then both grids
    assert graphs[-1] == graphs[9]

    assert (first.latents - eager.latents).abs().max() < ROUNDING * eager.latents.abs().max()
    assert list(model.transformer.state_dict()) == names
    assert any("disable" in reason for reason in counters["graph_break"])
    assert "compile: none -> regional" in differences(eager.recipe, first.recipe)


@pytest.mark.slow
def test_a_network_whose_attention_is_replaced_is_compiled_around_it(tmp_path: Path) -> None:
    folder = make_tiny("lumina-next", tmp_path / "model")
    model: Any = load_model(str(folder), device=CPU, dtype="float32")
    request = Request("a red sun", size="64x64", model=str(folder), dtype="float32", native_steps=2)
    alone = ParallelSettings()
    eager = render_with(model, join_for(model, alone, Topology.alone()), request)
    compile_blocks(model, backend="eager")
    compiled = ParallelSettings(compile="regional")
    found = render_with(model, join_for(model, compiled, Topology.alone()), request)
    assert 0 < counters["stats"]["unique_graphs"] <= 12
    assert (found.latents - eager.latents).abs().max() < ROUNDING * eager.latents.abs().max()


@pytest.fixture(autouse=True)
def forget() -> Any:
    """No graph of another test."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def test_blocks_are_what_a_network_lists() -> None:
    network = torch.nn.Module()
    network.blocks = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(2))
    network.others = torch.nn.ModuleList([torch.nn.ReLU()])
    network.out = torch.nn.Linear(1, 1)
    assert blocks_of(network) == [*network.blocks, *network.others]


@pytest.mark.slow
def test_a_missing_compiler_is_refused_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compilable("embedded", CPU)
    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(
        BadConfig, match=r"torch cannot compile for cpu here \(.*C\+\+ compiler.*\); install a C"
    ):
        check_compilable("embedded", CPU)


def test_quantised_weights_are_refused_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, folder = find_model("embedded")
    quantised = dataclasses.replace(settings, quantize="torchao-int8")
    monkeypatch.setattr(compiled, "find_model", lambda _: (quantised, folder))
    with pytest.raises(BadConfig, match=r"model embedded is quantised \(torchao-int8\), which is not compi"):
        check_compilable("embedded", CPU)
