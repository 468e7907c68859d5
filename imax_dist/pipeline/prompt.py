"""Stage 1: rank 0 embeds the prompt, every rank gets the same bits."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jinja2 import TemplateError
from torch import Tensor

from imax_dist.errors import BadManifest
from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.models.text_encoder import encoders_away, encoders_on
from imax_dist.parallel.broadcast import from_first_rank
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.shapes import Pixels
from imax_dist.wording import first_line


def embed_prompt(
    plan: PosterPlan,
    model: FlowModel,
    topology: Topology,
    *,
    picture: Pixels | None = None,
    visit: bool = False,
) -> Conditioning:
    """Embed the prompt, and the empty one where a pass uses classifier-free guidance.

    An editor may read it beside the ``picture`` given. ``visit``: the encoders are on the device for it and
    leave it afterwards: rank 0 alone has them, and would be the first to run out of memory.
    Raises BadManifest for a chat template that does not render.
    """
    guided = any(one.guidance_scale != 1.0 for one in (plan.native, *plan.passes))
    negative = guided and plan.spec.guidance == "classifier_free"

    def embed() -> dict[str, Tensor]:
        try:
            with encoders_on(model.encoders, model.device) if visit else nullcontext():
                prompt = plan.request.prompt
                return model.encode_prompt(prompt, negative=negative, picture=picture).to_tensors()
        except (TemplateError, OverflowError) as error:  # of the model's own template, in a sandbox
            text = f"model {plan.spec.name}: the chat template of its tokenizer fails: {first_line(error)}"
            raise BadManifest(text) from error

    return Conditioning.from_tensors(from_first_rank(embed, topology))


def visiting(model: FlowModel, settings: ParallelSettings) -> bool:
    """Whether the encoders come to the device for a prompt and leave it afterwards."""
    on_device = settings.text_encoders == "device"
    return on_device and (encoders_away(model.encoders, model.device) or crowded(model.device))


def crowded(device: torch.device) -> bool:
    """Whether a GPU's weights leave less than the half of it that the VAE's maps may take.

    Where there is room the encoders stay: on their way back for every poster the other ranks would wait.
    """
    if device.type != "cuda":
        return False
    total = torch.cuda.get_device_properties(device).total_memory
    return 2 * torch.cuda.memory_allocated(device) > total
