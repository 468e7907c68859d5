"""A request becomes a picture: the stages in order, on one rank or many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from imax_dist.events import Listener, Note, ignore, stage
from imax_dist.models.base import FlowModel
from imax_dist.parallel.broadcast import on_every_rank
from imax_dist.parallel.topology import Topology, detect, process_group
from imax_dist.pipeline.check import check_request
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.colours import with_colours_of
from imax_dist.pipeline.decode import DecodedPicture, decode
from imax_dist.pipeline.fit import check_guidance_passes, check_token_counts, left_out
from imax_dist.pipeline.guide import completed, with_guide
from imax_dist.pipeline.loading import load_requested
from imax_dist.pipeline.passes import run_passes
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.preview import PreviewFile, Previews
from imax_dist.pipeline.prompt import embed_prompt, visiting
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_for
from imax_dist.pipeline.recipe import make_recipe
from imax_dist.pipeline.region import redone
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import Run, never, unseen
from imax_dist.pipeline.state import PassState
from imax_dist.pipeline.upsample import with_network
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


def render(
    request: Request,
    *,
    topology: Topology | None = None,
    parallel: ParallelSettings | None = None,
    checkpoints: CheckpointFolder | None = None,
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
    show_native: Callable[[Tensor], None] | None = None,
    preview: PreviewFile | None = None,
) -> Rendering:
    """Render one poster from nothing; under torchrun every rank calls this with the same request.

    Raises the errors of imax_dist.errors; Preempted if ``stop`` returned True, after a checkpoint.
    """
    topology, settings = topology or detect(), parallel or ParallelSettings()
    joined = dist.is_available() and dist.is_initialized()
    with nullcontext() if joined else process_group(topology):
        on_every_rank(lambda: check_request(request, settings, guide=topology.is_first), topology)
        with stage(listen, "load"):
            model = on_every_rank(
                lambda: load_requested(request, settings, device=topology.device, text=topology.is_first),
                topology,
            )
        with stage(listen, "join"):
            ranks = join_for(model, settings, topology)
        for note in (*model.notes, *ranks.notes):
            listen(Note(note))
        return render_with(
            model,
            ranks,
            request,
            checkpoints=checkpoints,
            listen=listen,
            stop=stop,
            show_native=show_native,
            preview=preview,
        )


def render_with(
    model: FlowModel,
    ranks: Ranks,
    request: Request,
    *,
    checkpoints: CheckpointFolder | None = None,
    listen: Listener = ignore,
    stop: Callable[[], bool] = never,
    show_native: Callable[[Tensor], None] | None = None,
    preview: PreviewFile | None = None,
) -> Rendering:
    """Render one poster with a loaded model (the request's) on ranks that have joined."""
    request = dataclasses.replace(request, dtype=str(model.dtype).removeprefix("torch."))
    request, given = completed(request, ranks.topology, listen)
    plan, guide = with_guide(make_plan(request, model.spec, given), ranks.topology, listen, stop)
    plan, network = with_network(plan, ranks.topology, listen)
    shared = (plan.native, *plan.passes) if ranks.share_native else plan.passes
    check_token_counts([one.grid.tokens(model.spec.patch).count for one in shared], ranks.mesh.size)
    if plan.extrapolates:
        check_guidance_passes(ranks.settings.cfg, model.spec, plan.last.guidance_scale)
    for sentence in left_out(model.spec) if plan.extrapolates and ranks.topology.is_first else []:
        listen(Note(sentence))
    vae = VaeRunner.for_plan(plan, model, ranks, listen=listen, stop=stop, network=network)
    look = (
        Previews(preview, model, listen).look if preview is not None and ranks.topology.is_first else unseen
    )
    run = Run(plan, ranks, checkpoints, listen, stop, show_native, look, guide)
    latents = render_latents(run, vae)
    finished = PassState(plan.last.number, plan.last.steps, latents)
    with stage(listen, "decode"), run.saved_if_stopped(finished):
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
    plan, topology, model = run.plan, run.ranks.topology, vae.model
    with stage(run.listen, "prompt"):
        visit = visiting(model, run.ranks.settings)
        conditioning = embed_prompt(plan, model, topology, picture=run.guide, visit=visit)
    return run_passes(run, vae, conditioning)
