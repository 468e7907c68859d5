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
    state = _first(run, vae.model, conditioning)
    return go_on(run, vae, conditioning, state, through=len(run.plan.passes)).latents


def go_on(
    run: Run, vae: VaeRunner, conditioning: Conditioning, state: PassState, *, through: int
) -> PassState:
    """From ``state``, within or at the end of a pass, to the end of the pass ``through``."""
    model, topology = vae.model, run.ranks.topology
    for plan in run.plan.passes[max(state.number - 1, 0) : through]:
        if plan.number > state.number:
            state = _decoded_if_large(run, run.plan.passes[state.number - 1], vae, state)
            state = _shared(partial(begin_pass, plan, model, state), topology)
        if state.pictures is not None:
            with stage(run.listen, "endpoint"), run.saved_if_stopped(state):
                encoded = encoded_reference(plan, vae, state.pictures)
            state = with_reference(plan, state, encoded.to(state.latents.dtype))
        with run.saved_if_stopped(state):
            context = shown_by_all(plan, vae, run.guide)
        sampler = Sampler.of(plan, model, conditioning, run.ranks.sequence(plan.copies), context=context)
        with stage(run.listen, plan.name, steps=plan.steps):
            look = partial(run.look, plan)
            state = sampler.run(state, listen=run.listen, look=look, after_step=run.end_together)
    return state


def _first(run: Run, model: FlowModel, conditioning: Conditioning) -> PassState:
    """Where all ranks start: within a pass, at the first beyond native size, or at the end."""
    topology, needs_native = run.ranks.topology, not run.starts_from_guide and run.plan.uses_native
    if not (run.ranks.share_native and (needs_native or not run.plan.extrapolates)):
        return _shared(lambda: first_state(run, model, conditioning, run.find_checkpoint()), topology)
    number, step, tensors = from_first_rank(lambda: _taken_apart(run.find_checkpoint()), topology)
    found = PassState.from_tensors(number, step, tensors) if tensors else None
    if found is not None and found.number > 0:
        return found
    native = native_pass(run, model, conditioning, found)
    if not run.plan.extrapolates:
        return native
    return _shared(lambda: _after_native(run, model, native), topology)


def first_state(run: Run, model: FlowModel, conditioning: Conditioning, found: PassState | None) -> PassState:
    """The same by rank 0 alone, which makes the native picture; ``found`` is a checkpoint."""
    start = None if found is None else found.to(model.device)
    if start is not None and start.number > 0:
        return start
    if not run.plan.extrapolates:
        return native_pass(run, model, conditioning, start)
    if run.guide is not None and run.starts_from_guide:
        run.show(as_picture(run.guide).cpu)
        return begin_pass(run.plan.passes[0], model, guide_as_native(run, model, run.guide))
    if not run.plan.uses_native:
        return begin_pass(run.plan.passes[0], model, None)
    return _after_native(run, model, native_pass(run, model, conditioning, start))


def _after_native(run: Run, model: FlowModel, native: PassState) -> PassState:
    """The start of the first pass beyond native size; rank 0 shows the native picture."""
    run.show(partial(decode_whole, model, native.latents))
    return begin_pass(run.plan.passes[0], model, native)


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
    by_all = vae.strategy.name == "rows" and vae.topology.world_size > 1
    small = not (by_all or vae.strategy.too_large(plan.render_size))
    if small or plan.method.reference.upsample == "latents":
        return done
    after, pictures = run.plan.passes[plan.number], []
    with stage(run.listen, "endpoint"), run.saved_if_stopped(done):
        for latents in images_for(after, done):
            picture = decode(plan, vae, latents, dtype=latents.dtype)
            pictures += [] if picture is None else [as_pixels(picture.whole()).to(latents)]
    return replace(done, pictures=torch.cat(pictures)) if pictures else done


def _shared(make: Callable[[], PassState], topology: Topology) -> PassState:
    """What ``make`` gives on rank 0, on every rank."""

    return PassState.from_tensors(*from_first_rank(lambda: _taken_apart(make()), topology))


def _taken_apart(state: PassState | None) -> tuple[int, int, dict[str, Tensor]]:
    """As it is broadcast; nothing of no state."""
    return (0, 0, {}) if state is None else (state.number, state.step, {**state.to_tensors()})
