"""The pictures stay what they are: float64 latents of every preset as it ships and of every network, to 1e-9.

Values, not hashes: processors differ in the last bits. Whoever changes the numerics on purpose runs
``python tests/golden/regenerate.py`` and says so in the commit's title (CONTRIBUTING.md, "Numerics").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_cases import (
    EMBEDDED,
    TINY,
    TRAINED,
    golden,
    recorded,
    sampled,
    shipped,
    tiny_request,
    trained,
)
from golden_models import make_embedded, make_tiny
from ranks import run_ranks

from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.renderer import Renderer

TOLERANCE = {"latents": 1e-9, "pixels": 1e-6}
"""Pixels are float32."""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_embedded(tmp_path_factory.mktemp("golden") / "embedded"))


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    """The embedded model's architecture is loaded once for all its cases."""
    with Renderer(Topology.alone()) as renderer:
        yield renderer


def same(name: str, found: dict[str, list[float]]) -> None:
    for kind, values in found.items():
        assert values == pytest.approx(golden()[name][kind], rel=0, abs=TOLERANCE[kind]), kind


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_models_architecture_renders_the_golden_values(
    embedded: str, renderer: Renderer, name: str
) -> None:
    same(name, sampled(EMBEDDED[name], embedded, renderer=renderer))


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_network_renders_the_golden_values(tmp_path: Path, name: str) -> None:
    same(f"tiny {name}", sampled(tiny_request(name), str(make_tiny(name, tmp_path / name))))


def test_trained_weights_render_the_golden_values() -> None:
    same(TRAINED, trained())


def several(topology: Topology, requests: list[tuple[dict[str, Any], str]]) -> list[dict[str, list[float]]]:
    with Renderer(topology) as renderer:
        return [sampled(request, model, renderer=renderer) for request, model in requests]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_two_ranks_render_the_golden_values(embedded: str, part: int) -> None:
    names = list(EMBEDDED)[part::2]
    for results in run_ranks(2, several, [(EMBEDDED[name], embedded) for name in names]):
        for name, found in zip(names, results, strict=True):
            same(name, found)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_two_ranks_render_the_golden_values_of_every_tiny_network(tmp_path: Path, part: int) -> None:
    names = TINY[part::2]
    requests = [(tiny_request(name), str(make_tiny(name, tmp_path / name))) for name in names]
    for results in run_ranks(2, several, requests):
        for name, found in zip(names, results, strict=True):
            same(f"tiny {name}", found)


def test_every_case_has_golden_values_and_every_value_a_case() -> None:
    assert set(golden()) == {TRAINED} | set(EMBEDDED) | {f"tiny {name}" for name in TINY}
    assert set(recorded()) == set(shipped())


@pytest.mark.parametrize("name", shipped())
def test_a_preset_says_what_it_said_when_its_golden_values_were_taken(name: str) -> None:
    """Also where the golden sizes would not show the difference."""
    assert shipped()[name] == recorded()[name]
