"""Whether a request can be rendered at all, found out before any weight is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imax_dist.errors import ImaxError
from imax_dist.models.blueprint import find_blueprint
from imax_dist.models.catalogue import catalogue
from imax_dist.models.load import describe_model
from imax_dist.models.lora.merge import find_loras
from imax_dist.models.spec import ModelSpec
from imax_dist.output.image.reader import require_file
from imax_dist.pipeline.fit import check_cfg_execution
from imax_dist.pipeline.guide import completed
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method
from imax_dist.pipeline.upsample import require_network


def check_request(request: Request, settings: ParallelSettings, *, guide: bool) -> None:
    """Raise now what its plan, LoRA files or guide would raise once the model is loaded.

    ``guide`` False omits the guide's file, which rank 0 alone reads, and with it the plan, whose size it may
    give. What needs no model comes first, since a model may have to be downloaded.
    """
    load_method(request)
    if request.guide is not None:
        if not guide:
            return
        require_file(Path(request.guide), "guide")
    plan = check_plan(request, describe_model(request.model, loras=request.lora), guide=guide)
    if plan.extrapolates:
        check_cfg_execution(settings.cfg, plan.spec, plan.last.guidance_scale)


def check_plan(request: Request, spec: ModelSpec, *, guide: bool) -> PosterPlan:
    """The plan of ``request`` on a model with these facts; its guide, if any, fits the poster, and its
    network is there."""
    request, picture = completed(request) if guide else (request, None)
    plan = make_plan(request, spec, picture)
    if guide:
        require_network(plan)
    return plan


def is_editor(model: str) -> bool:
    """Whether it changes a picture by words; downloads nothing. Raises MissingInput if it is unknown."""
    return find_blueprint(model).spec.context == "tokens"


def has_weights(model: str) -> bool:
    """Whether those of a named model are on this disk, all of them; True for a model of another kind."""
    return all(entry.present == "yes" for entry in catalogue() if entry.name == model)


class CheckWithoutModel:
    """Says what is wrong with requests, without a download and with no weight read.

    Requests that differ in prompt and seed alone are checked once.
    """

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}
        self._specs: dict[str, ModelSpec | ImaxError] = {}

    def __call__(self, request: Request) -> str:
        """One sentence; empty if nothing is wrong."""
        key = replace(request, prompt="-", seed=0).fingerprint
        if key not in self._answers:
            self._answers[key] = self._check(request)
        return self._answers[key]

    def _check(self, request: Request) -> str:
        try:
            check_plan(request, self._spec(request.model), guide=True)
            find_loras(request.lora)
        except ImaxError as error:
            return str(error)
        return ""

    def _spec(self, model: str) -> ModelSpec:
        if model not in self._specs:
            try:
                self._specs[model] = find_blueprint(model).spec
            except ImaxError as error:
                self._specs[model] = error
        found = self._specs[model]
        if isinstance(found, ImaxError):
            raise found
        return found
