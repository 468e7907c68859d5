"""The request's model on this rank: which weights, where its text encoders compute."""

from __future__ import annotations

import torch

from imax_dist.models.base import FlowModel
from imax_dist.models.load import Loading, load
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request


def load_requested(
    request: Request, settings: ParallelSettings, *, device: torch.device, text: bool
) -> FlowModel:
    """Load it; ``text`` False leaves the text encoders out (ranks above 0).

    Raises what ``load`` raises, and BadConfig if it is to be compiled and cannot be.
    """
    encoders = torch.device("cpu") if settings.text_encoders == "cpu" else device
    how = Loading(device, encoders if text else None, request.dtype, request.lora, request.lora_partial)
    if settings.compile == "none":
        return load(request.model, how)
    from imax_dist.models.compiled import check_compilable, compile_blocks  # imports the compiler: a second

    check_compilable(request.model, device)
    model = load(request.model, how)
    compile_blocks(model)
    return model
