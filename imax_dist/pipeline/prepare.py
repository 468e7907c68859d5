"""Before the first pass: the plan, with all that its request leaves open, and the prompt, embedded."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from imax_dist.events import ignore, stage
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.pipeline.guide import completed, with_guide
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.preview import Previews
from imax_dist.pipeline.prompt import embed_prompt, visiting
from imax_dist.pipeline.ranks import Ranks
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import RenderHooks, Run, never
from imax_dist.pipeline.upsample import with_network
from imax_dist.super_resolution.network import EnlargingNetwork


def prepare(
    model: FlowModel, ranks: Ranks, request: Request, **hooks: Unpack[RenderHooks]
) -> tuple[Run, EnlargingNetwork | None]:
    """The run of ``request`` by a loaded model, the same on every rank, and what enlarges its references.

    Rank 0 reads the guide and the network's file for all. Raises what ``make_plan``, ``with_guide`` and
    ``with_network`` raise.
    """
    listen, topology = hooks.get("listen", ignore), ranks.topology
    request = replace(request, dtype=str(model.dtype).removeprefix("torch."))
    request, given = completed(request, topology, listen)
    planned = make_plan(request, model.spec, given)
    plan, guide = with_guide(planned, topology, listen, hooks.get("stop", never))
    plan, network = with_network(plan, topology, listen)
    preview = hooks.get("preview") if topology.is_first else None
    look = None if preview is None else Previews(preview, model, listen).look
    return Run(plan, ranks, guide=guide, look=look, **hooks), network


def read_prompt(run: Run, model: FlowModel) -> Conditioning:
    """The run's prompt, embedded on rank 0 for all."""
    with stage(run.listen, "prompt"):
        visit = visiting(model, run.ranks.settings)
        return embed_prompt(run.plan, model, run.ranks.topology, picture=run.guide, visit=visit)
