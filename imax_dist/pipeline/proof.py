"""A proof: the native picture alone, made by one rank, to be looked at before the poster is paid for.

Or, where the native picture would not show what is to be chosen (a strength, a switch of the recipe), a small
poster: the whole recipe at PROOF_SCALE times native. A native proof ends with a checkpoint after the last
native step; a render of the same request finds it there and resumes with the target-size pass, so that what
was approved is what the poster is guided by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from imax_dist.events import Listener, ignore, stage
from imax_dist.geometry import native_size
from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.models.base import FlowModel
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.decode import decode_whole
from imax_dist.pipeline.guide import completed, with_guide
from imax_dist.pipeline.native import native_pass
from imax_dist.pipeline.pixels import as_picture
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.prompt import embed_prompt
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import Run, never

PROOF_SCALE = 1.5
"""Sides of a small proof against native, at most: 2.25 times the tokens."""
NO_SHEET: dict[str, Any] = {"paper": None, "dpi": None, "bleed": None, "landscape": False, "output": {}}


class Proof(NamedTuple):
    """``pixels`` (H, W, 3) in [0, 1]; None if a poster of this plan is under way already."""

    pixels: Tensor | None
    plan: PosterPlan


def render_proof(
    model: FlowModel,
    request: Request,
    *,
    checkpoints: CheckpointFolder,
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
    marks: Marks = SILENT,
) -> Proof:
    """Make the native picture on this rank alone and leave its last checkpoint. ``model`` has its text part.

    Raises the errors of imax_dist.errors; Preempted if ``stop`` returned True, after a checkpoint.
    """
    request = dataclasses.replace(request, dtype=str(model.dtype).removeprefix("torch."))
    ranks = _alone(model, marks)
    request, picture = completed(request, None, listen)
    plan, guide = with_guide(make_plan(request, model.spec, picture), ranks.topology, listen, stop)
    if guide is not None and request.starts_from_guide:
        return Proof(as_picture(guide), plan)
    run = Run(plan, ranks, checkpoints, listen, stop, guide=guide)
    found = run.find_checkpoint()
    start = None if found is None else found.to(model.device)
    if start is not None and start.number > 0:
        return Proof(None, plan)
    with stage(listen, "prompt"):
        conditioning = embed_prompt(plan, model, ranks.topology, picture=guide)
    native = native_pass(run, model, conditioning, start)
    run.save(native)
    with stage(listen, "decode"):
        return Proof(decode_whole(model, native.latents), plan)


def render_small(
    model: FlowModel,
    request: Request,
    *,
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
    marks: Marks = SILENT,
) -> Proof:
    """The request's recipe at PROOF_SCALE times native, in the poster's shape, on this rank alone.

    A region is made anew at the poster's own size. Leaves no checkpoint: the poster's own passes are of other
    sizes. Raises as ``render_proof``.
    """
    request, given = completed(request, None, listen)
    plan = make_plan(request, model.spec, given)
    side = round(PROOF_SCALE * model.spec.settings.native_side)
    size = native_size(plan.size, side, model.spec.token_pixels)
    if size.area < plan.size.area and plan.region is None:
        request = dataclasses.replace(request, size=str(size), scale=None, **NO_SHEET)
    rendering = render_with(model, _alone(model, marks), request, listen=listen, stop=stop)
    return Proof(rendering.pixels, rendering.plan)


def _alone(model: FlowModel, marks: Marks) -> Ranks:
    topology = Topology.alone(model.device, marks=marks)
    return join_for(model, ParallelSettings(), topology)
