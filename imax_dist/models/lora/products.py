"""LoKr and LoHa (LyCORIS): layers whose change is a product of products, merged without peft.

LoKr: w1 (x) w2, Kronecker's product; LoHa: (a1 b1) * (a2 b2), element by element. Either factor of a LoKr may
be two matrices. The change is computed in float32 and added to the weight; diffusers loads a LoKr for two of
its pipelines and a LoHa for none (DECISIONS 107).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from imax_dist.models.lora.layers import OF_TEXT, LoraLayers, refuse_twice, spelt

UNDERSCORED = ("lycoris_", "lora_unet_", "lora_transformer_")
"""Before a layer's name whose dots are written as underscores."""
HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
FACTORS = ("lokr_w1", "lokr_w2")


def layer_and_part(key: str) -> tuple[str, str]:
    """``transformer.blocks.0.to_q`` and ``lokr_w1``."""
    layer, _, part = key.rpartition(".")
    return layer, part


def fit_products(tensors: Mapping[str, Tensor], network: nn.Module) -> LoraLayers:
    """Fit a file's ``tensors`` to ``network``, by diffusers' names with dots or with underscores."""
    modules = dict(network.named_modules())
    flat = {name.replace(".", "_"): name for name in modules}
    layers: dict[str, dict[str, Tensor]] = {}
    of_text = set()
    for key, x in tensors.items():
        layer, part = layer_and_part(key)
        if key.startswith(OF_TEXT):
            of_text.add(layer)
        else:
            layers.setdefault(layer, {})[part] = x
    names = {layer: _name(layer, flat) for layer in layers}
    refuse_twice(names)
    reasons = {layer: _misfit(parts, modules.get(names[layer])) for layer, parts in layers.items()}
    wrong = [f"{layer} {why}" for layer, why in reasons.items() if why]
    fitting = {
        f"transformer.{names[layer]}.{part}": x
        for layer, parts in layers.items()
        if not reasons[layer]
        for part, x in parts.items()
    }
    form = "LoHa" if any(".hada_" in key for key in tensors) else "LoKr"
    return LoraLayers(form, len(layers), len(layers) - len(wrong), (wrong or [""])[0], len(of_text), fitting)


def _name(layer: str, flat: Mapping[str, str]) -> str:
    bare = next((layer.removeprefix(mark) for mark in UNDERSCORED if layer.startswith(mark)), None)
    return spelt(layer) if bare is None else flat.get(bare, bare)


def _misfit(parts: Mapping[str, Tensor], module: Any) -> str:
    """Why a layer fits nothing; empty where it does."""
    if module is None:
        return "is not a layer of the network"
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        return "is a layer without a matrix"
    try:
        found = tuple(change({name: x.to("meta") for name, x in parts.items()}).shape)
    except (KeyError, RuntimeError, IndexError) as error:
        return f"lacks the factors of a layer ({str(error).splitlines()[0]})"
    wanted = (weight.shape[0], weight[0].numel())
    if found != wanted:
        return f"makes a change of {found}, but the layer's weight is {wanted}"
    return ""


def change(parts: Mapping[str, Tensor]) -> Tensor:
    """What is added to the weight (outputs, inputs). Raises KeyError for a factor that is not there."""
    known = {*HADAMARD, "alpha", *(f + end for f in FACTORS for end in ("", "_a", "_b"))}
    odd = sorted(set(parts) - known)
    if odd:
        raise KeyError(f"{odd[0]} is not known")
    x = {name: part.float() for name, part in parts.items()}
    if HADAMARD[0] in x:
        a1, b1, a2, b2 = (x[name].flatten(1) for name in HADAMARD)
        return (a1 @ b1) * (a2 @ b2) * _scale(parts, b1.shape[0])
    (w1, rank1), (w2, rank2) = (_factor(x, name) for name in FACTORS)
    rank = rank2 or rank1
    product = torch.kron(w1, w2).flatten(1)
    return product if rank is None else product * _scale(parts, rank)


def _factor(x: Mapping[str, Tensor], name: str) -> tuple[Tensor, int | None]:
    """A factor, and its rank if it is two matrices."""
    if name in x:
        return x[name].flatten(1), None
    first, second = x[f"{name}_a"], x[f"{name}_b"].flatten(1)
    return first @ second, second.shape[0]


def _scale(parts: Mapping[str, Tensor], rank: int) -> float:
    """Alpha over rank; a file without alpha was trained with 1."""
    alpha = parts.get("alpha")
    return 1.0 if alpha is None or alpha.is_meta else float(alpha) / rank


@torch.no_grad()
def merge_products(transformer: Any, layers: LoraLayers, weight: float) -> None:
    """Add every layer's change, ``weight`` times, in the weight's own dtype."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, x in layers.tensors.items():
        layer, part = layer_and_part(key.removeprefix("transformer."))
        grouped.setdefault(layer, {})[part] = x
    for name, parts in grouped.items():
        own = transformer.get_submodule(name).weight
        own += (weight * change({part: x.to(own.device) for part, x in parts.items()})).view_as(own).to(own)
