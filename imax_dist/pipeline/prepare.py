"""What an extrapolated pass starts from, made by rank 0: a checkpoint, or the pass before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from imax_dist.events import Note, stage
from imax_dist.method.flow import interpolate
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.pipeline.checkpoint import Checkpoint
from imax_dist.pipeline.decode import decode_whole
from imax_dist.pipeline.endpoint import Reference, enlarged_latents, native_pixels, reference_sigmas
from imax_dist.pipeline.native import NativePass, run_native, start_native
from imax_dist.pipeline.noise import start_noise
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.pipeline.run import Run, step_tensor
from imax_dist.shapes import Latents, Pixels


def prepare(run: Run, model: FlowModel, conditioning: Conditioning) -> dict[str, Tensor]:
    """The start of a pass, as ``begin_pass`` has it, or of a checkpoint within one. Rank 0 only.

    A checkpoint has the finished ``reference``, and what the pass carries from step to step.
    """
    checkpoint = find_checkpoint(run)
    if checkpoint is not None and checkpoint.phase == "extrapolated":
        places = {"step": step_tensor(checkpoint.step), "number": step_tensor(checkpoint.number)}
        return {**_moved(checkpoint, model), **places}
    if not run.plan.extrapolates:
        alone = native_pass(run, model, conditioning, checkpoint)
        return {"latents": alone.latents, "step": step_tensor(len(run.plan.sigmas) - 1)}
    native: NativePass | None = None
    if run.guide is not None:
        native = guide_as_native(run, model, run.guide)
    elif run.plan.uses_native:
        native = native_pass(run, model, conditioning, checkpoint)
        if run.show_native is not None:
            run.show_native(decode_whole(model, native.latents))
    return begin_pass(run.plan.passes[0], model, native)


def begin_pass(plan: RenderPlan, model: FlowModel, before: NativePass | None) -> dict[str, Tensor]:
    """Where the pass ``plan`` starts, after the pass ``before`` it: ``latents``, ``step``, ``number``.

    If it is guided also its ``reference``, or the ``native_pixels`` that all ranks make the reference from.
    Rank 0 only.
    """
    noise, number = start_noise(plan, model), len(plan.earlier)
    start = {"latents": noise, "step": step_tensor(0), "number": step_tensor(number)}
    if before is None:
        return start
    if plan.method.reference.upsample == "latents":
        return with_reference(plan, start, enlarged_latents(plan, before))
    return {**start, "native_pixels": native_pixels(plan, model, before)}


def with_reference(plan: RenderPlan, start: Mapping[str, Tensor], reference: Latents) -> dict[str, Tensor]:
    """``start`` with the reference, and the latents to start from where they depend on it."""
    kept = {name: tensor for name, tensor in start.items() if name != "native_pixels"}
    sigma = plan.sigmas[0]
    if sigma < 1.0:
        image = Reference(reference, reference_sigmas(plan)).at(sigma)
        kept["latents"] = interpolate(image, start["latents"], sigma)
    return {**kept, "reference": reference}


@torch.no_grad()
def guide_as_native(run: Run, model: FlowModel, pixels: Pixels) -> NativePass:
    """The given picture where the native pass's would be; shown as that one would be."""
    precise = pixels.to(model.device, torch.promote_types(model.dtype, torch.float32))
    if run.show_native is not None:
        run.show_native((pixels[0] / 2 + 0.5).permute(1, 2, 0).cpu())
    latents = model.encode_image(precise, noise=None).to(precise.dtype)
    return NativePass(latents, pixels=precise)


def find_checkpoint(run: Run) -> Checkpoint | None:
    """The newest checkpoint this run can go on from; says which, and which files it passed over."""
    if run.checkpoints is None:
        return None
    checkpoint, passed_over = run.checkpoints.find(run.plan.fingerprint)
    for sentence in passed_over:
        run.listen(Note(f"not resumed: {sentence}"))
    if checkpoint is not None:
        name = "native" if checkpoint.phase == "native" else run.pass_name(checkpoint.number)
        run.listen(Note(f"resumed after step {checkpoint.step} of the {name} pass"))
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
