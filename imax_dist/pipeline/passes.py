"""Stages 2 to 4: the native pass on rank 0, then each pass beyond native size on all ranks.

What the next pass is guided by is the picture of the pass before. Rank 0 alone decides where to start: at the
newest checkpoint, which may be of any pass, or from noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from imax_dist.events import stage
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.context import shown_by_all
from imax_dist.pipeline.decode import decode, decode_whole
from imax_dist.pipeline.native import guide_as_native, native_pass
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.pixels import as_picture, as_pixels
from imax_dist.pipeline.reference import (
    encoded_reference,
    enlarged_latents,
    finished_pictures,
    images_for,
    with_reference,
)
from imax_dist.pipeline.run import Run
from imax_dist.pipeline.sampler import Sampler
from imax_dist.pipeline.state import PassState
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents


def run_passes(run: Run, vae: VaeRunner, conditioning: Conditioning) -> Latents:
    """The poster's latents, the same bits on every rank."""
    state = _start_on_all_ranks(run, vae.model, conditioning)
    return run_through(run, vae, conditioning, state, through=len(run.plan.passes)).latents


def run_through(
    run: Run, vae: VaeRunner, conditioning: Conditioning, state: PassState, *, through: int
) -> PassState:
    """From ``state``, within or at the end of a pass, to the end of the pass ``through``."""
    model, topology = vae.model, run.ranks.topology
    for plan in run.plan.passes[max(state.number - 1, 0) : through]:
        if plan.number > state.number:
            state = _decoded_if_large(run, run.plan.passes[state.number - 1], vae, state)
            state = _broadcast_state(partial(begin_pass, plan, model, state), topology)
        if state.pictures is not None:
            with stage(run.listen, "endpoint"), run.saved_if_stopped(state):
                encoded = encoded_reference(plan, vae, state.pictures)
            state = with_reference(plan, state, encoded.to(state.latents.dtype))
        with run.saved_if_stopped(state):
            context = shown_by_all(plan, vae, run.guide)
        sampler = Sampler.of(plan, model, conditioning, run.ranks.sequence(plan.copies), context=context)
        with stage(run.listen, plan.name, steps=plan.steps):
            look = run.look_at(plan)
            state = sampler.run(state, listen=run.listen, look=look, after_step=run.end_together)
    return state


def _start_on_all_ranks(run: Run, model: FlowModel, conditioning: Conditioning) -> PassState:
    """Where all ranks start: within a pass, at the first beyond native size, or at the end."""
    topology = run.ranks.topology
    if not (run.ranks.share_native and run.makes_native):
        return _broadcast_state(
            lambda: begin_passes(run, model, start_of(run, model, conditioning, run.find_checkpoint())),
            topology,
        )

    def find() -> tuple[int, int, dict[str, Tensor]] | None:
        found = run.find_checkpoint()
        return None if found is None else _for_broadcast(found)

    parts = from_first_rank(find, topology)
    found = None if parts is None else PassState.from_tensors(*parts)
    start = start_of(run, model, conditioning, found)
    if start is not None and (start.number > 0 or not run.plan.extrapolates):
        return start
    return _broadcast_state(lambda: begin_passes(run, model, start), topology)


def start_of(
    run: Run,
    model: FlowModel,
    conditioning: Conditioning,
    found: PassState | None,
    *,
    native: bool = False,
) -> PassState | None:
    """What the passes beyond native size begin with: the native picture, given or made, from ``found`` on.

    A checkpoint ``found`` beyond it is returned as it is; None where no pass is guided by a picture, unless
    ``native`` asks for it. Rank 0 calls it alone, or all ranks where they share the native pass.
    """
    start = None if found is None else found.to(model.device)
    if start is not None and start.number > 0:
        return start
    if native or run.makes_native:
        return native_pass(run, model, conditioning, start)
    return None if run.given_native is None else guide_as_native(run, model, run.given_native)


def begin_passes(run: Run, model: FlowModel, start: PassState | None) -> PassState:
    """The start of the first pass beyond native size, its picture shown by rank 0; or a later start."""
    if start is not None and (start.number > 0 or not run.plan.extrapolates):
        return start
    if run.given_native is not None:
        run.show(as_picture(run.given_native).cpu)
    elif start is not None:
        run.show(partial(decode_whole, model, start.latents))
    return begin_pass(run.plan.passes[0], model, start)


def begin_pass(plan: PassPlan, model: FlowModel, before: PassState | None) -> PassState:
    """The start of ``plan`` after the pass ``before`` it, which guides it if there is one. Rank 0 only.

    The state has its reference, or the pictures that all ranks make the reference from.
    """
    start = PassState(plan.number, step=0, latents=pass_noise(plan, model))
    if before is None:
        return start
    if plan.method.reference.upsample == "latents":
        return with_reference(plan, start, enlarged_latents(plan, before))
    return replace(start, pictures=finished_pictures(plan, model, before))


def _decoded_if_large(run: Run, plan: PassPlan, vae: VaeRunner, done: PassState) -> PassState:
    """With its picture, decoded by rows on all ranks, if there are several or one has no room for it."""
    small = vae.strategy.encoding_ranks == 1 and not vae.strategy.too_large(plan.render_size)
    if small or plan.method.reference.upsample == "latents":
        return done
    after, pictures = run.plan.passes[plan.number], []
    with stage(run.listen, "endpoint"), run.saved_if_stopped(done):
        for latents in images_for(after, done):
            picture = decode(plan, vae, latents, dtype=latents.dtype)
            pictures += [] if picture is None else [as_pixels(picture.whole()).to(latents)]
    return replace(done, pictures=torch.cat(pictures)) if pictures else done


def _broadcast_state(make: Callable[[], PassState], topology: Topology) -> PassState:
    """What ``make`` gives on rank 0, on every rank."""
    return PassState.from_tensors(*from_first_rank(lambda: _for_broadcast(make()), topology))


def _for_broadcast(state: PassState) -> tuple[int, int, dict[str, Tensor]]:
    return state.number, state.step, state.to_tensors()
