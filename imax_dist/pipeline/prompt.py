"""Stage 1: rank 0 embeds the prompt, every rank gets the same bits."""

from __future__ import annotations

from torch import Tensor

from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import PosterPlan


def embed_prompt(plan: PosterPlan, model: FlowModel, topology: Topology) -> Conditioning:
    """Embed the prompt, and the empty one where a pass uses classifier-free guidance."""
    guided = any(one.guidance_scale != 1.0 for one in (plan.native, *plan.passes))
    negative = guided and plan.spec.guidance == "classifier_free"

    def embed() -> dict[str, Tensor]:
        return model.encode_prompt(plan.request.prompt, negative=negative).to_tensors()

    return Conditioning.from_tensors(from_first_rank(embed, topology))
