"""A proof: the native picture alone, made by one rank, to be looked at before the poster is paid for.

Or, where the native picture would not show what is to be chosen (a strength, a switch of the recipe), a small
poster: the whole recipe at PROOF_SCALE times native. A native proof ends with a checkpoint after the last
native step; a render of the same request finds it there and resumes with the pass after it, so that what
was approved is what the poster is guided by.

Where many ranks make many posters, a rank goes on alone with the first of the larger passes, too, which are
too small to be shared well (DECISIONS 113).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from torch import Tensor

from imax_dist.events import ignore, stage
from imax_dist.geometry import native_size
from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.models.base import FlowModel
from imax_dist.parallel.engines.registry import AUTO, DRAFTS
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.decode import decode_whole
from imax_dist.pipeline.guide import completed
from imax_dist.pipeline.passes import begin_passes, run_through, start_of
from imax_dist.pipeline.pixels import as_picture
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.prepare import prepare, read_prompt
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import RenderHooks
from imax_dist.pipeline.vae_runner import VaeRunner

PROOF_SCALE = 1.5
"""Sides of a small proof against native, at most: 2.25 times the tokens."""
NO_SHEET: dict[str, Any] = {"paper": None, "dpi": None, "bleed": None, "landscape": False, "output": {}}


def render_proof(
    model: FlowModel,
    request: Request,
    *,
    show: Callable[[Tensor], None],
    ranks: Ranks | None = None,
    passes: int = 0,
    **hooks: Unpack[RenderHooks],
) -> None:
    """Make the native picture on this rank alone, ``show`` it and leave its last checkpoint.

    ``model`` has its text part; the picture is (H, W, 3) in [0, 1]. ``passes`` ahead, the native one first,
    but not the poster's last, are made with their checkpoints, by ``ranks`` of one (``alone``); with 0 the
    native picture is made to be looked at, needed or not. Nothing is shown where the poster has gone on
    beyond the native pass. Raises the errors of imax_dist.errors; Preempted if ``stop`` returned True, after
    a checkpoint.
    """
    run, network = prepare(model, ranks or alone(model), request, **hooks)
    plan = run.plan
    if passes and plan.extrapolates and not plan.uses_native:
        return
    through = max(min(passes, len(plan.passes)) - 1, 0)
    if run.given_native is not None:
        show(as_picture(run.given_native))
        if through < 1:
            return
    found = run.find_checkpoint()
    if found is not None and found.number > through:
        return
    conditioning = read_prompt(run, model)
    start = start_of(run, model, conditioning, found, native=run.given_native is None)
    assert start is not None, "the native picture is given or made"
    if start.number == 0 and run.given_native is None:
        run.save(start)
        with stage(run.listen, "decode"):
            show(decode_whole(model, start.latents))
    if through > 0:
        vae = VaeRunner.for_plan(plan, model, run.ranks, listen=run.listen, stop=run.stop, network=network)
        start = begin_passes(run, model, start)
        run.save(run_through(run, vae, conditioning, start, through=through))


def render_small(
    model: FlowModel,
    request: Request,
    *,
    show: Callable[[Tensor], None],
    ranks: Ranks | None = None,
    **hooks: Unpack[RenderHooks],
) -> None:
    """``show`` the request's recipe at PROOF_SCALE times native, in the poster's shape, by this rank alone.

    A region is rendered again at the poster's own size. Leaves no checkpoint: the poster's own passes
    are of other sizes. Raises as ``render_proof``.
    """
    hooks["checkpoints"] = None
    request, given = completed(request, None, hooks.get("listen", ignore))
    plan = make_plan(request, model.spec, given)
    side = round(PROOF_SCALE * model.spec.settings.native_side)
    size = native_size(plan.size, side, model.spec.token_pixels)
    if size.area < plan.size.area and plan.region is None:
        request = dataclasses.replace(
            request, size=str(size), scale=None, method=_first_level(request.method), **NO_SHEET
        )
    rendering = render_with(model, ranks or alone(model), request, **hooks)
    assert rendering.pixels is not None
    show(rendering.pixels)


def _first_level(method: Mapping[str, Any]) -> dict[str, Any]:
    """The switches of a poster's first pass: a small proof has no other."""
    start = method.get("start")
    if not isinstance(start, Mapping):
        return dict(method)
    levels = start.get("sigma")
    if not (isinstance(levels, list | tuple) and levels):
        return dict(method)
    return {**method, "start": {**start, "sigma": levels[0]}}


def alone(model: FlowModel, settings: ParallelSettings | None = None, marks: Marks = SILENT) -> Ranks:
    """A rank by itself: a gang's ``settings`` without what ranks share, such as an engine's groups."""
    settings = settings or ParallelSettings()
    own = dataclasses.replace(settings, ulysses=None, ring=None, text="sharded", native="rank0")
    own = dataclasses.replace(own, cfg="batched" if settings.cfg == "batched" else "two_passes")
    own = dataclasses.replace(own, engine=settings.engine if settings.engine in DRAFTS else AUTO)
    return join_for(model, own, Topology.alone(model.device, marks=marks))
