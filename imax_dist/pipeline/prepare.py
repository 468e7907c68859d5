"""What the extrapolated pass starts from, made by rank 0: a checkpoint, or native pass and endpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.events import stage
from imax_dist.method.flow import interpolate
from imax_dist.models.base import Conditioning, FlowModel
from imax_dist.pipeline.checkpoint import Checkpoint
from imax_dist.pipeline.decode import decode_whole
from imax_dist.pipeline.endpoint import Reference, enlarged_latents, native_pixels, reference_sigmas
from imax_dist.pipeline.native import NativePass, run_native, start_native
from imax_dist.pipeline.noise import start_noise
from imax_dist.pipeline.run import Run, step_tensor
from imax_dist.shapes import Latents


def prepare(run: Run, model: FlowModel, conditioning: Conditioning) -> dict[str, Tensor]:
    """``latents`` and ``step`` to go on from. Rank 0 only.

    If the pass uses the native picture, also its ``reference``, or the ``native_pixels`` that all ranks make
    the reference from.
    """
    checkpoint = find_checkpoint(run)
    if checkpoint is not None and checkpoint.phase == "extrapolated":
        return {**_moved(checkpoint, model), "step": step_tensor(checkpoint.step)}
    if not run.plan.extrapolates:
        native = native_pass(run, model, conditioning, checkpoint)
        return {"latents": native.latents, "step": step_tensor(len(run.plan.sigmas) - 1)}
    start = {"latents": start_noise(run.plan, model), "step": step_tensor(0)}
    if not run.plan.uses_native:
        return start
    native = native_pass(run, model, conditioning, checkpoint)
    if run.show_native is not None:
        run.show_native(decode_whole(model, native.latents))
    if run.plan.method.reference.upsample == "latents":
        return with_reference(run, start, enlarged_latents(run.plan, native))
    return {**start, "native_pixels": native_pixels(run.plan, model, native)}


def with_reference(run: Run, start: dict[str, Tensor], reference: Latents) -> dict[str, Tensor]:
    """``start`` with the reference, and the latents to start from where they depend on it."""
    latents = _start_point(run, reference, start["latents"])
    return {"latents": latents, "step": start["step"], "reference": reference}


def find_checkpoint(run: Run) -> Checkpoint | None:
    """The newest checkpoint this run can go on from; says which, and which files it passed over."""
    if run.checkpoints is None:
        return None
    checkpoint, passed_over = run.checkpoints.find(run.plan.fingerprint)
    for sentence in passed_over:
        run.listen("note", {"text": f"not resumed: {sentence}"})
    if checkpoint is not None:
        text = f"resumed after step {checkpoint.step} of the {checkpoint.phase} pass"
        run.listen("note", {"text": text})
    return checkpoint


def native_pass(
    run: Run, model: FlowModel, conditioning: Conditioning, checkpoint: Checkpoint | None
) -> NativePass:
    """The native pass from noise or from a checkpoint within it, which may be its last step."""
    steps = len(run.plan.native_sigmas) - 1
    state = start_native(run.plan, model) if checkpoint is None else _native_state(checkpoint, model)

    def after_step(step: int, x: Latents) -> None:
        tensors = {"latents": x}
        if state.endpoints:
            tensors["endpoints"] = torch.cat(state.endpoints)
        run.end_alone("native", step, steps, tensors)

    with stage(run.listen, "native", steps=steps):
        return run_native(
            run.plan,
            model,
            conditioning,
            state,
            listen=run.listen,
            after_step=after_step,
            guidance_passes=run.ranks.passes_alone,
        )


def _native_state(checkpoint: Checkpoint, model: FlowModel) -> NativePass:
    tensors = _moved(checkpoint, model)
    endpoints = list(tensors["endpoints"].split(1)) if "endpoints" in tensors else []
    return NativePass(latents=tensors["latents"], step=checkpoint.step, endpoints=endpoints)


def _moved(checkpoint: Checkpoint, model: FlowModel) -> dict[str, Tensor]:
    return {name: tensor.to(model.device) for name, tensor in checkpoint.tensors.items()}


def _start_point(run: Run, reference: Latents, noise: Latents) -> Latents:
    """Pure noise, or the reference noised to the level the pass starts at."""
    sigma = run.plan.sigmas[0]
    if sigma == 1.0:
        return noise
    return interpolate(Reference(reference, reference_sigmas(run.plan)).at(sigma), noise, sigma)
