"""Stage 1: rank 0 embeds the prompt, every rank gets the same bits."""

from __future__ import annotations

import torch
from jinja2 import TemplateError
from torch import Tensor

from imax_dist.errors import BadManifest
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.wording import first_line


def embed_prompt(
    plan: PosterPlan, model: FlowModel, topology: Topology, *, leave: bool = False
) -> Conditioning:
    """Embed the prompt, and the empty one where a pass uses classifier-free guidance.

    ``leave``: the encoders are moved to the device for it and leave it afterwards: rank 0 alone has them, and
    would be the first to run out of memory.
    Raises BadManifest for a chat template that does not render.
    """
    guided = any(one.guidance_scale != 1.0 for one in (plan.native, *plan.passes))
    negative = guided and plan.spec.guidance == "classifier_free"

    def embed() -> dict[str, Tensor]:
        if leave:
            model.place_encoders(model.device)
        try:
            made = model.encode_prompt(plan.request.prompt, negative=negative).to_tensors()
        except (TemplateError, OverflowError) as error:  # of the model's own template, in a sandbox
            text = f"model {plan.spec.name}: the chat template of its tokenizer fails: {first_line(error)}"
            raise BadManifest(text) from error
        if leave:
            model.place_encoders(torch.device("cpu"))
        return made

    return Conditioning.from_tensors(from_first_rank(embed, topology))
