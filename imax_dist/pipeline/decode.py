"""Stage 5: latents to pixels, cropped to the size that was asked for."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from imax_dist.errors import ImaxError
from imax_dist.models.base import FlowModel
from imax_dist.pipeline.plan import RenderPlan
from imax_dist.shapes import Latents


@torch.no_grad()
def decode(plan: RenderPlan, model: FlowModel, latents: Latents) -> Float[Tensor, "height width 3"]:
    """Pixels in [0, 1], float32 on the CPU; the surplus of the render size is cut evenly off both sides.

    Raises ImaxError for a picture with numbers that are not finite.
    """
    pixels = model.decode_image(latents)[0].float().cpu()
    if not pixels.isfinite().all():
        raise ImaxError(
            f"the picture came out with numbers that are not finite in {plan.request.dtype}; "
            "use --dtype bfloat16 or float32, and check switches changed with --set"
        )
    top = (plan.render_size.height - plan.size.height) // 2
    left = (plan.render_size.width - plan.size.width) // 2
    cropped = pixels[:, top : top + plan.size.height, left : left + plan.size.width]
    return (cropped / 2 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0).contiguous()


@torch.no_grad()
def decode_whole(model: FlowModel, latents: Latents) -> Float[Tensor, "height width 3"]:
    """The picture of ``latents`` with nothing cut off, to look at; pixels in [0, 1], float32 on the CPU."""
    pixels = model.decode_image(latents)[0].float().cpu()
    return (pixels / 2 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0)
