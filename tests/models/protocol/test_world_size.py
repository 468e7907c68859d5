"""The world size never changes the picture: every adapter on two and four ranks against one, in float64.

One process group a world size renders all models on all its meshes: starting ranks costs most.
"""

from __future__ import annotations

import traceback
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks

from imax_dist.models.tiny import TINY
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.render import render
from imax_dist.pipeline.request import Request

MESHES: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "u2": dict(ulysses=2),
        "cfg split": dict(cfg="split"),
        "r2": dict(ring=2),
        "u2, engine diffusers": dict(ulysses=2, engine="diffusers"),
        "r2, text replicated": dict(ring=2, text="replicated"),
    },
    4: {
        "u4": dict(ulysses=4),
        "u2r2": dict(ulysses=2, ring=2),
        "cfg split, r2": dict(ring=2, cfg="split"),
    },
}
PRESETS = {"u2r2": "paper", "r2, text replicated": "paper"}
"""Text copies at every cell of the grid, where text is in the sequence; imax elsewhere."""
DISTILLED = {"flux-dev", "flux2-dev"}
"""They take their guidance as an input: there is no second prompt for the other half of the ranks."""


def meshes_of(name: str, world: int) -> dict[str, dict[str, Any]]:
    """The meshes a model has a use for."""
    meshes = MESHES[world].items()
    return {mesh: own for mesh, own in meshes if not (own.get("cfg") == "split" and name in DISTILLED)}


CASES = [(name, world, mesh) for name in TINY for world in MESHES for mesh in meshes_of(name, world)]


def request_of(folder: str, preset: str) -> Request:
    """7 x 9 tokens, so that no mesh divides them; native is 3 x 4 or so."""
    scales = {"guidance_scale": {"native": 2.0, "extrapolated": 3.0}}
    return Request(
        "a red sun over the sea",
        size="144x112",
        model=folder,
        preset=preset,
        dtype="float64",
        steps=2,
        native_steps=1,
        method=scales,
    )


def render_all(topology: Topology, folders: dict[str, str]) -> dict[tuple[str, str], Any]:
    """Latents, or the traceback, of every model on every mesh of this world size."""
    results: dict[tuple[str, str], Any] = {}
    for name, folder in folders.items():
        for mesh, settings in meshes_of(name, topology.world_size).items():
            request = request_of(folder, PRESETS.get(mesh, "imax"))
            try:
                rendering = render(request, topology=topology, parallel=ParallelSettings(**settings))
                results[name, mesh] = rendering.latents.numpy()
            except Exception:
                results[name, mesh] = traceback.format_exc()
    return results


@pytest.fixture(scope="module")
def rendered(folders: dict[str, Path]) -> dict[int, list[dict[tuple[str, str], Any]]]:
    """World size -> what every rank got."""
    names = {name: str(folder) for name, folder in folders.items()}
    return {world: run_ranks(world, render_all, names, timeout_s=200) for world in MESHES}


@cache
def serial(folder: str, preset: str) -> Any:
    return render(request_of(folder, preset)).latents.numpy()


@pytest.mark.parametrize(("name", "world", "mesh"), CASES, ids=str)
def test_the_picture_is_the_same_on_any_number_of_ranks(
    folders: dict[str, Path], rendered: Any, name: str, world: int, mesh: str
) -> None:
    expected = serial(str(folders[name]), PRESETS.get(mesh, "imax"))
    assert np.isfinite(expected).all()
    results = [own[name, mesh] for own in rendered[world]]
    for result in results:
        assert not isinstance(result, str), result
        assert np.array_equal(result, results[0])
        assert np.abs(result - expected).max() < 1e-10 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", list(TINY))
def test_the_method_changes_the_picture(folders: dict[str, Path], name: str) -> None:
    """Guards the guard: another recipe gives other latents."""
    one, other = (serial(str(folders[name]), preset) for preset in ("imax", "paper"))
    assert np.abs(one - other).max() > 1e-3
