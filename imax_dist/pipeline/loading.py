"""The request's model on this rank: which weights, where its text encoders compute."""

from __future__ import annotations

import torch

from imax_dist.models.base import FlowModel
from imax_dist.models.load import Loading, change_loras, load
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request


def load_requested(
    request: Request,
    settings: ParallelSettings,
    *,
    device: torch.device,
    with_text_encoders: bool,
    keeps_base: bool = False,
) -> FlowModel:
    """Load it; without text encoders on ranks above 0; ``keeps_base`` lets LoRAs change.

    Raises what ``load`` raises, and BadConfig if it is to be compiled and cannot be.
    """
    encoders = torch.device("cpu") if settings.text_encoders == "cpu" else device
    to = encoders if with_text_encoders else None
    how = Loading(device, to, request.dtype, request.lora, request.lora_partial, keeps_base)
    if not settings.compiles:
        return load(request.model, how)
    from imax_dist.models.compiled import check_compilable, compile_blocks  # imports the compiler: a second

    check_compilable(request.model, device)
    model = load(request.model, how)
    compile_blocks(model)
    return model


def differs_in_loras(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether two keys are of one model with different sets of LoRA files."""
    return one[:2] == other[:2] and one != other


def change_requested_loras(model: FlowModel, request: Request) -> None:
    """Give a loaded model the request's LoRA files in the place of those it has."""
    how = Loading(model.device, None, request.dtype, request.lora, request.lora_partial, keeps_base=True)
    change_loras(model, how)
