"""The world size never changes the picture: every network on two and four ranks against one, in float64.

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
from editors import EDITORS, picture_file
from guidance_of import AS_INPUT, TRAINED_IN, scales
from ranks import run_ranks
from xfuser_on_cpu import answer_for_cpu, xfuser_is_installed

from imax_dist.models.tiny import TINY
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.guide import completed, with_guide
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
        "cfg2": dict(cfg="split"),
        "r2 with replicated text": dict(ring=2, text="replicated"),
        "r2 with a shared native pass": dict(ring=2, native="shared"),
        "r2 with replicated text, engine xfuser": dict(ring=2, text="replicated", engine="xfuser"),
    },
    4: {
        "u4": dict(ulysses=4),
        "u2r2": dict(ulysses=2, ring=2),
        "cfg2 r2": dict(ring=2, cfg="split"),
        "u2r2, engine xfuser": dict(ulysses=2, ring=2, engine="xfuser"),
        "u2r2, engine diffusers": dict(ulysses=2, ring=2, engine="diffusers"),
        "cfg2 r2, engine diffusers": dict(ring=2, cfg="split", engine="diffusers"),
    },
}
NETWORKS = (*TINY, *EDITORS)
TOGETHER = 4
"""Models that a process group renders: its start costs as much as one of them."""
GROUPS = [NETWORKS[first : first + TOGETHER] for first in range(0, len(NETWORKS), TOGETHER)]
PAPER = ("u2r2", "r2 with replicated text")
"""Meshes whose picture has text copies at every cell of the grid, where text is in the sequence."""
BENCHMARKS = (Path(__file__).parents[3] / "BENCHMARKS.md").read_text(encoding="utf-8")


def preset_of(mesh: str) -> str:
    """Text copies take part in both forms: cell by cell (paper), and counted (imax)."""
    return "paper" if mesh.startswith(PAPER) else "imax"


def meshes_of(name: str, world: int) -> dict[str, dict[str, Any]]:
    """The meshes a model has a use for; editors also make their native picture on all ranks."""

    def has_use(own: dict[str, Any]) -> bool:
        guided = name not in (*AS_INPUT, *TRAINED_IN)
        return (guided or "cfg" not in own) and (name in EDITORS or "native" not in own)

    return {mesh: own for mesh, own in MESHES[world].items() if has_use(own)}


CASES = [(name, world, mesh) for name in NETWORKS for world in MESHES for mesh in meshes_of(name, world)]


def request_of(folder: str, picture: str, preset: str) -> Request:
    """7 x 9 tokens, so that no mesh divides them; native is 3 x 4 or so. Editors are shown the picture."""
    name = Path(folder).name
    shown = {"guide": picture, **EDITORS[name].asks} if name in EDITORS else {}
    return Request(
        "a red sun over the sea",
        size="144x112",
        model=folder,
        preset=preset,
        dtype="float64",
        steps=2,
        native_steps=1,
        method=scales(name, native=2.0, extrapolated=3.0),
        **shown,
    )


def render_all(
    topology: Topology, folders: dict[str, str], picture: str, *, with_xfuser: bool
) -> dict[tuple[str, str], Any]:
    """Latents, or the traceback, of every model on every mesh of this world size."""
    if with_xfuser:
        answer_for_cpu()
    results: dict[tuple[str, str], Any] = {}
    for name, folder in folders.items():
        request = request_of(folder, picture, "imax")
        model = load_requested(
            request, ParallelSettings(), device=topology.device, with_text_encoders=topology.is_first
        )
        for mesh, own in meshes_of(name, topology.world_size).items():
            settings = ParallelSettings(**own)
            if settings.engine == "xfuser" and not with_xfuser:
                continue
            try:
                ranks = join_for(model, settings, topology)
                asked, given = completed(request_of(folder, picture, preset_of(mesh)), topology)
                plan, guide = with_guide(make_plan(asked, model.spec, given), topology)
                vae = VaeRunner.for_plan(plan, model, ranks)
                results[name, mesh] = render_latents(Run(plan, ranks, guide=guide), vae).numpy()
            except Exception:
                results[name, mesh] = traceback.format_exc()
    return results


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(picture_file(tmp_path_factory.mktemp("pictures") / "own.png", 144, 112))


@pytest.fixture(scope="module")
def rendered(
    folders: dict[str, Path], picture: str
) -> Callable[[int, str], list[dict[tuple[str, str], Any]]]:
    """World size and a model -> what every rank got of that model and its neighbours; rendered once."""
    render_them = partial(render_all, with_xfuser=xfuser_is_installed())

    @cache
    def render_group(world: int, names: tuple[str, ...]) -> list[dict[tuple[str, str], Any]]:
        own = {name: str(folders[name]) for name in names}
        return run_ranks(world, render_them, own, picture, timeout_s=200)

    return lambda world, name: render_group(world, next(names for names in GROUPS if name in names))


@cache
def serial(folder: str, picture: str, preset: str) -> Any:
    return render(request_of(folder, picture, preset)).latents.numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "world", "mesh"), CASES, ids=str)
def test_the_picture_is_the_same_on_any_number_of_ranks(
    folders: dict[str, Path], picture: str, rendered: Any, name: str, world: int, mesh: str
) -> None:
    if MESHES[world][mesh].get("engine") == "xfuser" and not xfuser_is_installed():
        pytest.skip("xfuser and yunchang are not installed: pip install 'imax-dist[dev]'")
    expected = serial(str(folders[name]), picture, preset_of(mesh))
    assert np.isfinite(expected).all()
    results = [own[name, mesh] for own in rendered(world, name)]
    for result in results:
        assert not isinstance(result, str), result
        assert np.array_equal(result, results[0])
        assert np.abs(result - expected).max() < 1e-10 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", list(TINY))
def test_the_method_changes_the_picture(folders: dict[str, Path], picture: str, name: str) -> None:
    """Guards the guard: another recipe gives other latents."""
    one, other = (serial(str(folders[name]), picture, preset) for preset in ("imax", "paper"))
    assert np.abs(one - other).max() > 1e-3


def row_of(name: str) -> str:
    """The network's line of the table: its meshes, engine by engine."""
    found: dict[str, list[str]] = {"torch": [], "xfuser": [], "diffusers": []}
    for world in MESHES:
        for mesh, own in meshes_of(name, world).items():
            found[own.get("engine", "torch")].append(mesh.split(",")[0])
    return f"| `{name}` | {' | '.join(', '.join(meshes) for meshes in found.values())} |"


def test_the_table_of_networks_meshes_and_engines_is_what_runs_here() -> None:
    rows = [line for line in BENCHMARKS.splitlines() if line.startswith("| `") and "u2r2" in line]
    assert rows == [row_of(name) for name in NETWORKS]
