"""Stage 2: the guidance image at native size, made by rank 0 alone or by all ranks, or given."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from imax_dist.events import stage
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.pipeline.context import shown_alone
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.run import Run
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.pipeline.state import PassState
from imax_dist.shapes import Pixels


def native_pass(
    run: Run, model: FlowModel, conditioning: Conditioning, start: PassState | None = None
) -> PassState:
    """Denoise from noise, or from ``start`` within the pass, with what the model was trained with.

    Where the native picture is shared all ranks must call this, else rank 0 alone (DECISIONS 88).
    """
    plan = run.plan.native
    state = PassState(number=0, step=0, latents=pass_noise(plan, model)) if start is None else start
    ranks = run.ranks
    if ranks.share_native:
        sequence, after_step = ranks.sequence(plan.copies), run.end_together
    else:
        sequence = sequence_alone(plan, ranks.passes_alone, marks=ranks.topology.marks)
        after_step = run.end_alone
    context = shown_alone(plan, model, run.guide)
    sampler = Sampler.of(plan, model, conditioning, sequence, context=context)
    with stage(run.listen, plan.name, steps=plan.steps):
        return sampler.run(state, listen=run.listen, look=run.look_at(plan), after_step=after_step)


@torch.no_grad()
def guide_as_native(run: Run, model: FlowModel, pixels: Pixels) -> PassState:
    """The given picture where the native pass's would be; its latents, only if it is they that are enlarged.

    For those it is first brought to whole latent pixels (bicubic), if it has others.
    """
    plan = run.plan.native
    precise = pixels.to(model.device, torch.promote_types(model.dtype, torch.float32))
    if plan.method.reference.upsample != "latents":
        return PassState(0, plan.steps, latents=pass_noise(plan, model), pictures=precise)
    height, width = (
        side - side % plan.spec.token_pixels or plan.spec.token_pixels for side in precise.shape[2:]
    )
    if precise.shape[2:] != (height, width):
        precise = F.interpolate(precise, size=(height, width), mode="bicubic").clamp(-1.0, 1.0)
    latents = model.encode_image(precise, noise=None).to(precise.dtype)
    return PassState(0, plan.steps, latents=latents, pictures=precise)
