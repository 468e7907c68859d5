"""Stage 1: rank 0 embeds the prompt, every rank gets the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import PosterPlan


def embed_prompt(
    plan: PosterPlan, model: FlowModel, topology: Topology, *, leave: bool = False
) -> Conditioning:
    """Embed the prompt, and the empty one where a pass uses classifier-free guidance.

    ``leave``: the encoders are moved to the device for it and leave it afterwards: rank 0 alone has them, and
    would be the first to run out of memory.
    """
    guided = any(one.guidance_scale != 1.0 for one in (plan.native, *plan.passes))
    negative = guided and plan.spec.guidance == "classifier_free"

    def embed() -> dict[str, Tensor]:
        if leave:
            model.place_encoders(model.device)
        made = model.encode_prompt(plan.request.prompt, negative=negative).to_tensors()
        if leave:
            model.place_encoders(torch.device("cpu"))
        return made

    return Conditioning.from_tensors(from_first_rank(embed, topology))
