"""The world size never changes the picture: every adapter on two and four ranks against one, in float64.

All three engines; xfuser is xDiT's own code, on gloo through tests/xfuser_on_cpu.py. A process group renders
some of the models on all meshes of its size, and a rank loads each model once: that costs most.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks
from xfuser_on_cpu import answer_for_cpu, xfuser_is_installed

from imax_dist.models.tiny import TINY
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.loading import load_requested
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.render import render_latents
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import Run
from imax_dist.pipeline.vae_runner import VaeRunner

MESHES: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "u2": dict(ulysses=2),
        "r2": dict(ring=2),
        "cfg split": dict(cfg="split"),
        "r2, text replicated": dict(ring=2, text="replicated"),
        "r2, text replicated, engine xfuser": dict(ring=2, text="replicated", engine="xfuser"),
    },
    4: {
        "u4": dict(ulysses=4),
        "u2r2": dict(ulysses=2, ring=2),
        "cfg split, r2": dict(ring=2, cfg="split"),
        "u2r2, engine xfuser": dict(ulysses=2, ring=2, engine="xfuser"),
        "u2r2, engine diffusers": dict(ulysses=2, ring=2, engine="diffusers"),
    },
}
TOGETHER = 4
"""Models that a process group renders: its start costs as much as one of them."""
PAPER = ("u2r2", "r2, text replicated")
"""Meshes whose picture has text copies at every cell of the grid, where text is in the sequence."""
DISTILLED = {"flux-dev", "flux2-dev", "hunyuan-image-2.1-distilled"}
"""They take their guidance as an input: there is no second prompt for the other half of the ranks."""


def preset_of(mesh: str) -> str:
    """Text copies take part in both forms: cell by cell (paper), and counted (imax)."""
    return "paper" if mesh.startswith(PAPER) else "imax"


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


def render_all(
    topology: Topology, folders: dict[str, str], *, with_xfuser: bool
) -> dict[tuple[str, str], Any]:
    """Latents, or the traceback, of every model on every mesh of this world size."""
    if with_xfuser:
        answer_for_cpu()
    results: dict[tuple[str, str], Any] = {}
    for name, folder in folders.items():
        model = load_requested(
            request_of(folder, "imax"),
            ParallelSettings(),
            device=topology.device,
            with_text_encoders=topology.is_first,
        )
        for mesh, own in meshes_of(name, topology.world_size).items():
            settings = ParallelSettings(**own)
            if settings.engine == "xfuser" and not with_xfuser:
                continue
            try:
                ranks = join_for(model, settings, topology)
                run = Run(make_plan(request_of(folder, preset_of(mesh)), model.spec), ranks)
                vae = VaeRunner.for_plan(run.plan, model, ranks)
                results[name, mesh] = render_latents(run, vae).numpy()
            except Exception:
                results[name, mesh] = traceback.format_exc()
    return results


@pytest.fixture(scope="module")
def rendered(folders: dict[str, Path]) -> Callable[[int, str], list[dict[tuple[str, str], Any]]]:
    """World size and a model -> what every rank got of that model and its neighbours; rendered once."""
    render_them = partial(render_all, with_xfuser=xfuser_is_installed())
    names = tuple(folders)
    groups = [names[first : first + TOGETHER] for first in range(0, len(names), TOGETHER)]

    @cache
    def render_group(world: int, names: tuple[str, ...]) -> list[dict[tuple[str, str], Any]]:
        return run_ranks(world, render_them, {name: str(folders[name]) for name in names}, timeout_s=200)

    return lambda world, name: render_group(world, next(names for names in groups if name in names))


@cache
def serial(folder: str, preset: str) -> Any:
    return render(request_of(folder, preset)).latents.numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "world", "mesh"), CASES, ids=str)
def test_the_picture_is_the_same_on_any_number_of_ranks(
    folders: dict[str, Path], rendered: Any, name: str, world: int, mesh: str
) -> None:
    if MESHES[world][mesh].get("engine") == "xfuser" and not xfuser_is_installed():
        pytest.skip("xfuser and yunchang are not installed: pip install 'imax-dist[dev]'")
    expected = serial(str(folders[name]), preset_of(mesh))
    assert np.isfinite(expected).all()
    results = [own[name, mesh] for own in rendered(world, name)]
    for result in results:
        assert not isinstance(result, str), result
        assert np.array_equal(result, results[0])
        assert np.abs(result - expected).max() < 1e-10 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", list(TINY))
def test_the_method_changes_the_picture(folders: dict[str, Path], name: str) -> None:
    """Guards the guard: another recipe gives other latents."""
    one, other = (serial(str(folders[name]), preset) for preset in ("imax", "paper"))
    assert np.abs(one - other).max() > 1e-3
