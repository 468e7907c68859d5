"""Whether a request can be rendered at all, found out before any weight is read."""

from __future__ import annotations

from pathlib import Path

from imax_dist.models.load import describe_model
from imax_dist.models.spec import ModelSpec
from imax_dist.output.image.guide import open_guide
from imax_dist.output.image.reader import require_file
from imax_dist.pipeline.fit import check_guidance_passes
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method


def check_request(request: Request, settings: ParallelSettings, *, guide: bool) -> None:
    """Raise now what its plan, LoRA files or guide would raise once the model is loaded.

    ``guide`` False omits the guide's file: rank 0 alone reads it. What needs no model comes first, since a
    model may have to be downloaded.
    """
    load_method(request)
    if guide and request.guide is not None:
        require_file(Path(request.guide), "guide")
    plan = check_plan(request, describe_model(request.model, loras=request.lora), guide=guide)
    if plan.extrapolates:
        check_guidance_passes(settings.cfg, plan.spec, plan.last.guidance_scale)


def check_plan(request: Request, spec: ModelSpec, *, guide: bool) -> PosterPlan:
    """The plan of ``request`` on a model with these facts; its guide, if any, fits the poster."""
    plan = make_plan(request, spec)
    if guide and request.guide is not None:
        open_guide(Path(request.guide), plan.size)
    return plan
