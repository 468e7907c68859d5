"""A proof: the native picture alone, made by one rank, to be looked at before the poster is paid for.

It ends with a checkpoint after the last native step; a render of the same request finds it there and resumes
with the target-size pass, so that what was approved is what the poster is guided by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from imax_dist.events import Listener, ignore, stage
from imax_dist.models.base import FlowModel
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.decode import decode_whole
from imax_dist.pipeline.guide import with_guide
from imax_dist.pipeline.native import native_pass
from imax_dist.pipeline.pixels import as_picture
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.prompt import embed_prompt
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_for
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import Run, never


class Proof(NamedTuple):
    """``pixels`` (H, W, 3) in [0, 1] at native size; None if a poster of this plan is under way already."""

    pixels: Tensor | None
    plan: PosterPlan


def render_proof(
    model: FlowModel,
    request: Request,
    *,
    checkpoints: CheckpointFolder,
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
) -> Proof:
    """Make the native picture on this rank alone and leave its last checkpoint. ``model`` has its text part.

    Raises the errors of imax_dist.errors; Preempted if ``stop`` returned True, after a checkpoint.
    """
    request = dataclasses.replace(request, dtype=str(model.dtype).removeprefix("torch."))
    ranks = _alone(model)
    plan, guide = with_guide(make_plan(request, model.spec), ranks.topology, listen)
    if guide is not None:
        return Proof(as_picture(guide), plan)
    run = Run(plan, ranks, checkpoints, listen, stop)
    found = run.find_checkpoint()
    start = None if found is None else found.to(model.device)
    if start is not None and start.number > 0:
        return Proof(None, plan)
    with stage(listen, "prompt"):
        conditioning = embed_prompt(plan, model, ranks.topology)
    native = native_pass(run, model, conditioning, start)
    run.save(native)
    with stage(listen, "decode"):
        return Proof(decode_whole(model, native.latents), plan)


def _alone(model: FlowModel) -> Ranks:
    topology = Topology.alone(model.device)
    return join_for(model, ParallelSettings(), topology)
