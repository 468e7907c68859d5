"""Another set of LoRA files on a loaded model: the base weights put back bit for bit, the new set merged.

Weights of the layers that a set changes are kept in the host's memory from before it is merged: subtracting a
set again would leave roundings behind, and reading the weights again takes minutes for a large network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from imax_dist.models.lora.merge import FittedLora

PART = re.compile(r"\.(lora_|lokr_|hada_|alpha).*$")
"""What follows a layer's name in that of a tensor."""


def layers_of(fitted: Sequence[FittedLora]) -> list[str]:
    """Names of the network's layers that a set changes."""
    keys = [key for each in fitted for key in each.layers.tensors]
    names = (PART.sub("", key.removeprefix("transformer.")) for key in keys)
    return list(dict.fromkeys(names))


def kept_weights(transformer: Any, fitted: Sequence[FittedLora]) -> dict[str, Tensor]:
    """Copies on the CPU of the weights that merging ``fitted`` will change; none of quantised weights."""
    if is_quantised(transformer):
        return {}
    return {name: transformer.get_submodule(name).weight.detach().cpu().clone() for name in layers_of(fitted)}


@torch.no_grad()
def put_back(transformer: Any, kept: Mapping[str, Tensor]) -> None:
    """The network as it was before its set: kept weights in place, LoRA layers of quantised ones gone."""
    if is_quantised(transformer) and getattr(transformer, "peft_config", None):
        transformer.unload_lora()
    for name, weight in kept.items():
        transformer.get_submodule(name).weight.copy_(weight)


def is_quantised(transformer: Any) -> bool:
    """Whether diffusers holds its weights in few bits, to which nothing can be added."""
    return getattr(transformer, "hf_quantizer", None) is not None
