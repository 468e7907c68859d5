"""Stages 3 and 4: the extrapolated pass, or the passes of a cascade, each guided by the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from imax_dist.events import stage
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.pipeline.acceleration import Accelerated
from imax_dist.pipeline.decode import decode
from imax_dist.pipeline.endpoint import Reference, encoded_reference
from imax_dist.pipeline.extrapolate import guided, network_velocity, run_extrapolated, skip_residual
from imax_dist.pipeline.native import NativePass
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.prepare import begin_pass, with_reference
from imax_dist.pipeline.run import Run
from imax_dist.pipeline.step_cache import StepCache
from imax_dist.pipeline.vae_runner import VaeRunner
from imax_dist.shapes import Latents


def run_passes(run: Run, vae: VaeRunner, conditioning: Conditioning, start: Mapping[str, Tensor]) -> Latents:
    """Every pass from ``start`` (of ``prepare``) on; the same bits on every rank."""
    topology = run.ranks.topology
    while True:
        number = int(start["number"])
        plan = run.plan.passes[number]
        if "native_pixels" in start:
            waiting = {name: start[name] for name in ("latents", "native_pixels")}
            with stage(run.listen, "endpoint"), run.saved_if_stopped(0, waiting, number):
                encoded = encoded_reference(plan, vae, start["native_pixels"])
            start = with_reference(plan, start, encoded.to(start["latents"].dtype))
        done = _run_pass(run, vae.model, conditioning, start)
        if plan is run.plan:
            return done.latents
        done = _decoded_if_large(run, plan, vae, done)
        begin = partial(begin_pass, run.plan.passes[number + 1], vae.model, done)
        start = from_first_rank(begin, topology)


def _decoded_if_large(run: Run, plan: RenderPlan, vae: VaeRunner, done: NativePass) -> NativePass:
    """With its pixels, decoded by rows on all ranks, if the picture is more than one rank has room for."""
    reference = plan.method.reference
    if (
        reference.upsample == "latents"
        or reference.kind == "per_step"
        or not vae.strategy.too_large(plan.render_size)
    ):
        return done
    number = len(plan.earlier)
    with stage(run.listen, "endpoint"), run.saved_if_stopped(done.step, {"latents": done.latents}, number):
        picture = decode(plan, vae, done.latents)
    if picture is None:
        return done
    pixels = 2.0 * picture.whole().permute(2, 0, 1)[None] - 1.0
    return replace(done, pixels=pixels.to(done.latents))


def _run_pass(
    run: Run, model: FlowModel, conditioning: Conditioning, start: Mapping[str, Tensor]
) -> NativePass:
    number = int(start["number"])
    plan, name = run.plan.passes[number], run.pass_name(number)
    reference = Reference(start["reference"], plan.reference_sigmas) if "reference" in start else None
    endpoints = list(start["endpoints"].split(1)) if "endpoints" in start else []
    keep = plan.method.reference.kind == "per_step" and plan is not run.plan
    asked = network_velocity(plan, model, conditioning, sequence=run.ranks.sequence(plan.copies))
    network = StepCache(asked, plan.skipped, start.get("cached"))
    pulled = guided(plan, network, reference, observe=endpoints.append if keep else None)
    velocity = Accelerated(pulled, reference, plan.method.reference.acceleration, start.get("carried"))
    steps = len(plan.sigmas) - 1

    def after_step(step: int, x: Latents) -> None:
        held = {"latents": x, "reference": start.get("reference"), "carried": velocity.carried}
        held["cached"] = network.kept
        held["endpoints"] = torch.cat(endpoints) if endpoints else None
        present = {key: value for key, value in held.items() if value is not None}
        run.end_together(step, steps, present, number)

    with stage(run.listen, name, steps=steps):
        latents = run_extrapolated(
            plan,
            velocity,
            start["latents"],
            first=int(start["step"]),
            stage=name,
            listen=run.listen,
            before_step=skip_residual(plan, model, reference),
            after_step=after_step,
        )
    return NativePass(latents, step=steps, endpoints=endpoints)
