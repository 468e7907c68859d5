"""Qwen-Image, Z-Image, FLUX.2: ours is the unmodified diffusers pipeline, and the ranks do not change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from their_pipelines import THEIRS, their_latents
from torch import Tensor

from imax_dist.events import ignore
from imax_dist.models.base import FlowModel
from imax_dist.models.load import load_model
from imax_dist.models.tiny import make_tiny
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.native import run_native, start_native
from imax_dist.pipeline.plan import RenderPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.render import render
from imax_dist.pipeline.request import Request

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
ROUNDING = 5e-6
"""Of float32, relative to the largest latent."""
NAMES = sorted(THEIRS)
MESHES = [
    pytest.param((2, 2), id="u2r2"),
    pytest.param((4, 1), id="u4r1"),
    pytest.param((2, 1), id="u2r1", marks=pytest.mark.slow),
    pytest.param((1, 2), id="u1r2", marks=pytest.mark.slow),
]
FOLDERS: dict[str, Path] = {}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    FOLDERS.clear()
    return tmp_path_factory.mktemp("tiny")


def folder_of(name: str, home: Path) -> Path:
    """The tiny pipeline of ``name``, made once for the module."""
    if name not in FOLDERS:
        FOLDERS[name] = make_tiny(name, home / name)
    return FOLDERS[name]


def planned(folder: Path, *, size: str, scale: float) -> tuple[RenderPlan, FlowModel]:
    model = load_model(str(folder), device=torch.device("cpu"), dtype="float32")
    method = {"guidance_scale": {"native": scale}}
    plan = make_plan(Request(PROMPT, size=size, seed=3, steps=3, method=method), model.spec)
    assert not plan.extrapolates
    return plan, model


def our_latents(plan: RenderPlan, model: FlowModel) -> tuple[Tensor, Tensor]:
    """Noise and final latents of our native pass."""
    conditioning = model.encode_prompt(PROMPT, negative=True)
    start = start_native(plan, model)
    noise = start.latents.clone()
    done = run_native(plan, model, conditioning, start, listen=ignore, after_step=nothing)
    return noise, done.latents


def nothing(step: int, x: Tensor) -> None:
    """No checkpoint, no stop."""


@pytest.mark.parametrize(("size", "scale"), [("64x64", 2.5), ("80x48", 1.0)])
@pytest.mark.parametrize("name", NAMES)
def test_the_native_pass_is_the_diffusers_pipeline(name: str, size: str, scale: float, home: Path) -> None:
    plan, model = planned(folder_of(name, home), size=size, scale=scale)
    noise, ours = our_latents(plan, model)
    theirs = their_latents(name, FOLDERS[name], plan, noise)
    assert (ours - theirs).abs().max() < ROUNDING * theirs.abs().max()


def latents_of(topology: Topology, fields: dict[str, Any], parallel: dict[str, Any]) -> np.ndarray:
    rendering = render(Request(**fields), topology=topology, parallel=ParallelSettings(**parallel))
    return rendering.latents.numpy()


SERIAL: dict[str, np.ndarray] = {}


@pytest.mark.parametrize("degrees", MESHES)
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_render_is_the_same_on_any_mesh(name: str, degrees: tuple[int, int], home: Path) -> None:
    """11 x 9 tokens, every other step 12 x 10; four text copies; text sharded or replicated in turn."""
    fields = dict(
        prompt=PROMPT, size="176x144", model=str(folder_of(name, home)), seed=2, dtype="float64", steps=2,
        native_steps=2, method={"text": {"copies": "grid"}},
    )  # fmt: skip
    if name not in SERIAL:
        SERIAL[name] = run_ranks(1, latents_of, fields, {})[0]
    parallel = dict(ulysses=degrees[0], ring=degrees[1], text="replicated" if degrees[0] == 2 else "sharded")
    results = run_ranks(degrees[0] * degrees[1], latents_of, fields, parallel)
    for latents in results:
        assert np.abs(latents - SERIAL[name]).max() < 1e-10
        assert np.array_equal(latents, results[0])
