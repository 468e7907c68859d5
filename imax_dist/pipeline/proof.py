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
from collections.abc import Callable
from typing import Any

from torch import Tensor

from imax_dist.events import Listener, ignore, stage
from imax_dist.geometry import native_size
from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.models.base import FlowModel
from imax_dist.parallel.engines.registry import AUTO, DRAFTS
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.decode import decode_whole
from imax_dist.pipeline.guide import completed, with_guide
from imax_dist.pipeline.native import guide_as_native, native_pass
from imax_dist.pipeline.passes import begin_pass, go_on
from imax_dist.pipeline.pixels import as_picture
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.prompt import embed_prompt, visiting
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import Run, never
from imax_dist.pipeline.upsample import with_network
from imax_dist.pipeline.vae_runner import VaeRunner

PROOF_SCALE = 1.5
"""Sides of a small proof against native, at most: 2.25 times the tokens."""
NO_SHEET: dict[str, Any] = {"paper": None, "dpi": None, "bleed": None, "landscape": False, "output": {}}


def render_proof(
    model: FlowModel,
    request: Request,
    *,
    checkpoints: CheckpointFolder,
    show: Callable[[Tensor], None],
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
    ranks: Ranks | None = None,
    passes: int = 0,
) -> None:
    """Make the native picture on this rank alone, ``show`` it and leave its last checkpoint.

    ``model`` has its text part; the picture is (H, W, 3) in [0, 1]. ``passes`` ahead, the native one first,
    but not the poster's last, are made with their checkpoints, by ``ranks`` of one (``alone``); with 0 the
    native picture is made to be looked at, needed or not. Nothing is shown where the poster has gone on
    beyond the native pass. Raises the errors of imax_dist.errors; Preempted if ``stop`` returned True, after
    a checkpoint.
    """
    request = dataclasses.replace(request, dtype=str(model.dtype).removeprefix("torch."))
    ranks = ranks or alone(model)
    request, picture = completed(request, None, listen)
    plan, guide = with_guide(make_plan(request, model.spec, picture), ranks.topology, listen, stop)
    plan, network = with_network(plan, ranks.topology, listen)
    run = Run(plan, ranks, checkpoints, listen, stop, guide=guide)
    if passes and plan.extrapolates and not plan.uses_native:
        return
    through = max(min(passes, len(plan.passes)) - 1, 0)
    if run.starts_from_guide and guide is not None:
        show(as_picture(guide))
        if through < 1:
            return
    found = run.find_checkpoint()
    state = None if found is None else found.to(model.device)
    if state is not None and state.number > through:
        return
    with stage(listen, "prompt"):
        visit = visiting(model, ranks.settings)
        conditioning = embed_prompt(plan, model, ranks.topology, picture=guide, visit=visit)
    if run.starts_from_guide and guide is not None:
        state = state or guide_as_native(run, model, guide)
    elif state is None or state.number == 0:
        state = native_pass(run, model, conditioning, state)
        run.save(state)
        with stage(listen, "decode"):
            show(decode_whole(model, state.latents))
    assert state is not None
    if through > 0:
        vae = VaeRunner.for_plan(plan, model, ranks, listen=listen, stop=stop, network=network)
        start = begin_pass(plan.passes[0], model, state) if state.number == 0 else state
        run.save(go_on(run, vae, conditioning, start, through=through))


def render_small(
    model: FlowModel,
    request: Request,
    *,
    show: Callable[[Tensor], None],
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
    ranks: Ranks | None = None,
) -> None:
    """``show`` the request's recipe at PROOF_SCALE times native, in the poster's shape, by this rank alone.

    A region is rendered again at the poster's own size. Leaves no checkpoint: the poster's own passes
    are of other sizes. Raises as ``render_proof``.
    """
    request, given = completed(request, None, listen)
    plan = make_plan(request, model.spec, given)
    side = round(PROOF_SCALE * model.spec.settings.native_side)
    size = native_size(plan.size, side, model.spec.token_pixels)
    if size.area < plan.size.area and plan.region is None:
        request = dataclasses.replace(request, size=str(size), scale=None, **NO_SHEET)
    rendering = render_with(model, ranks or alone(model), request, listen=listen, stop=stop)
    assert rendering.pixels is not None
    show(rendering.pixels)


def alone(model: FlowModel, settings: ParallelSettings | None = None, marks: Marks = SILENT) -> Ranks:
    """A rank by itself: a gang's ``settings`` without what ranks share, such as an engine's groups."""
    settings = settings or ParallelSettings()
    own = dataclasses.replace(settings, ulysses=None, ring=None, text="sharded", native="rank0")
    own = dataclasses.replace(own, cfg="batched" if settings.cfg == "batched" else "two_passes")
    own = dataclasses.replace(own, engine=settings.engine if settings.engine in DRAFTS else AUTO)
    return join_for(model, own, Topology.alone(model.device, marks=marks))
