"""A request becomes a picture: the stages in order, on one rank or many."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Unpack

from torch import Tensor

from imax_dist.events import Note, stage
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.colours import with_colours_of
from imax_dist.pipeline.decode import DecodedPicture, decode
from imax_dist.pipeline.fit import check_cfg_execution, check_token_counts, omitted
from imax_dist.pipeline.passes import run_passes
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.prepare import prepare, read_prompt
from imax_dist.pipeline.ranks import Ranks
from imax_dist.pipeline.recipe import make_recipe
from imax_dist.pipeline.region import redone
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import RenderHooks, Run
from imax_dist.pipeline.state import PassState
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents, Pixels


class Rendering(NamedTuple):
    """What a render gives. ``picture`` and ``pixels`` are None on ranks above 0."""

    picture: DecodedPicture | None
    latents: Latents
    plan: PosterPlan
    recipe: dict[str, Any]

    @property
    def pixels(self) -> Tensor | None:
        """The whole picture in memory: (H, W, 3) in [0, 1], float32."""
        return None if self.picture is None else self.picture.whole()

    def save(self, path: str | Path) -> None:
        """Write the poster (png, tif, jpg or pdf) with its recipe, as ``imax generate --out`` does.

        On ranks above 0 there is nothing to write. Raises BadValue, CannotWrite or NoPermission.
        """
        from imax_dist.output.image.poster import require_printable, write_poster  # needed at the end only

        if self.picture is not None:
            require_printable(Path(path), self.recipe["request"])
            write_poster(Path(path), self.picture.bands(), self.recipe)


def render_with(model: FlowModel, ranks: Ranks, request: Request, **hooks: Unpack[RenderHooks]) -> Rendering:
    """Render one poster with a loaded model (the request's) on ranks that have joined."""
    run, network = prepare(model, ranks, request, **hooks)
    plan, guide = run.plan, run.guide
    shared = (plan.native, *plan.passes) if ranks.share_native else plan.passes
    check_token_counts([one.grid.tokens(model.spec.patch).count for one in shared], ranks.mesh.size)
    if plan.extrapolates:
        check_cfg_execution(ranks.settings.cfg, model.spec, plan.last.guidance_scale)
    for sentence in omitted(model.spec) if plan.extrapolates and ranks.topology.is_first else []:
        run.listen(Note(sentence))
    vae = VaeRunner.for_plan(plan, model, ranks, listen=run.listen, stop=run.stop, network=network)
    latents = render_latents(run, vae)
    finished = PassState(plan.last.number, plan.last.steps, latents)
    with stage(run.listen, "decode"), run.saved_if_stopped(finished):
        picture = decode(plan, vae, latents)
        if picture is not None and guide is not None:
            picture = _like_the_guide(plan, picture, guide)
    return Rendering(picture, latents, plan, make_recipe(plan, model, ranks, run.made_on))


def _like_the_guide(plan: PosterPlan, picture: DecodedPicture, guide: Pixels) -> DecodedPicture:
    """The poster around a region rendered again, or the colours of a picture started from by strength."""
    if plan.region is not None:
        return redone(plan, picture, guide)
    if plan.request.edit or plan.method.start.strength is None:
        return picture
    return with_colours_of(plan, picture, guide)


def render_latents(run: Run, vae: VaeRunner) -> Latents:
    """All stages but the decode; the final latents are the same bits on every rank."""
    return run_passes(run, vae, read_prompt(run, vae.model))
