"""Which layers of a LoRA file are layers of a network, in the key names of whoever trained it.

Names of diffusers, PEFT and ai-toolkit that spell a module of the network are read here; any other (kohya,
ComfyUI, black-forest-labs, x-labs) goes through the converter of diffusers' own loader for the pipeline.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from imax_dist.errors import BadValue
from imax_dist.wording import first_line, plural

LAYER = re.compile(
    r"^(.+?)\.(?:lora[_.](?:A|B|up|down)\b|lora_linear_layer\.|(?:up|down)\.weight$|alpha$).*$"
)
SIDES = {
    "A": ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down", "down.weight"),
    "B": ("lora_B", "lora_up", "lora.up", "lora_linear_layer.up", "up.weight"),
}
OF_TEXT = ("text_encoder", "lora_te", "te1_", "te2_", "te_", "text_model")
PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.diffusion_model.")
FORMATS = {
    "lora_unet_": "kohya",
    "lora_transformer_": "kohya",
    "base_model.model.": "PEFT",
    "diffusion_model.": "ai-toolkit or ComfyUI",
    "transformer.": "diffusers",
}


TrainedScale: TypeAlias = Callable[[str, int], float]
"""(layer, rank) -> alpha over rank, as the file's adapter settings have it."""


class LoraLayers(NamedTuple):
    """A file's layers, fitted to a network."""

    form: str
    """Whose key names they are."""
    total: int
    """Layers in the file, without those of text encoders."""
    taken: int
    misfit: str
    """The first layer that fits nothing, and why; empty where all fit."""
    of_text: int
    """Layers of text encoders, which are not merged."""
    tensors: dict[str, Tensor]
    """What fits, in diffusers' names, alpha over rank multiplied in."""

    def summary(self) -> str:
        """``20 of 20 layers (kohya)``."""
        left = f"; {plural(self.of_text, 'layer')} of text encoders omitted" if self.of_text else ""
        return f"{self.taken} of {plural(self.total, 'layer')} ({self.form}){left}"


def layer_of(key: str) -> str:
    """The layer a tensor belongs to; the key itself where it is not part of a LoRA."""
    found = LAYER.match(key)
    return found[1] if found else key


def fit_layers(
    tensors: Mapping[str, Tensor], network: nn.Module, pipeline: Any, *, trained_scale: TrainedScale
) -> LoraLayers:
    """Fit a file's ``tensors`` to ``network``; ``pipeline`` is diffusers' class, whose converter is used.

    ``trained_scale`` is for layers without an ``alpha`` of their own. Raises BadValue where nothing is read.
    """
    of_text = {layer_of(key) for key in tensors if key.startswith(OF_TEXT)}
    own = {key: x for key, x in tensors.items() if not key.startswith(OF_TEXT)}
    layers = list(dict.fromkeys(layer_of(key) for key in own))
    modules = dict(network.named_modules())
    if any(spelt(layer) in modules for layer in layers):
        refuse_twice({layer: spelt(layer) for layer in layers})
        read = Converted(_asspelt(own, trained_scale), {layer: [spelt(layer)] for layer in layers}, {})
    else:
        read = _converted(own, layers, pipeline)
    made, sources, torn = read
    reasons = {layer: torn.get(layer) or _misfit(sources.get(layer, []), made, modules) for layer in layers}
    wrong = [f"{layer} {why}" for layer, why in reasons.items() if why]
    good = {name for layer in layers if not reasons[layer] for name in sources[layer]}
    fitting = {
        key: x for key, x in made.items() if key.removeprefix("transformer.").rpartition(".lora_")[0] in good
    }
    return LoraLayers(
        _form(own), len(layers), len(layers) - len(wrong), (wrong or [""])[0], len(of_text), fitting
    )


def _form(keys: Iterable[str]) -> str:
    first = next(iter(keys), "")
    return next((form for prefix, form in FORMATS.items() if first.startswith(prefix)), "bare names")


def spelt(layer: str) -> str:
    """The layer's name without what a trainer puts before it."""
    for prefix in PREFIXES:
        layer = layer.removeprefix(prefix)
    return layer


def refuse_twice(names: Mapping[str, str]) -> None:
    """Raise BadValue where two layers of a file are one of the network: one would replace the other."""
    first: dict[str, str] = {}
    for layer, name in names.items():
        if first.setdefault(name, layer) != layer:
            raise BadValue(
                f"its layers {first[name]} and {layer} are both {name} of the network; omit one of them"
            )


def _asspelt(tensors: Mapping[str, Tensor], trained_scale: TrainedScale) -> dict[str, Tensor]:
    """In diffusers' names, ``alpha`` over rank multiplied into the second matrix."""
    made = {}
    for key, x in tensors.items():
        layer = layer_of(key)
        side = next((side for side in SIDES if _is(key, side)), None)
        if side is not None:
            made[f"transformer.{spelt(layer)}.lora_{side}.weight"] = x
    for layer in {layer_of(key) for key in tensors}:
        up, alpha = f"transformer.{spelt(layer)}.lora_B.weight", tensors.get(f"{layer}.alpha")
        if up in made:
            rank = made[up].shape[1] if made[up].ndim > 1 else 1
            scale = trained_scale(spelt(layer), rank) if alpha is None else float(alpha) / rank
            made[up] = made[up] if scale == 1.0 else made[up].float() * scale
    return made


def _is(key: str, side: str) -> bool:
    """Whether it is a layer's first (A) or second (B) matrix."""
    return key.removeprefix(f"{layer_of(key)}.").startswith(SIDES[side])


class Converted(NamedTuple):
    """What diffusers' converter made of a file."""

    tensors: dict[str, Tensor]
    places: dict[str, list[str]]
    """For each of the file's layers, where in the network it went."""
    torn: dict[str, str]
    """Layers whose matrices it could not take apart, and what it said."""


UNREAD = (ValueError, KeyError, AssertionError, AttributeError, IndexError)
"""What a converter raises for names that it does not know."""


def _converted(tensors: Mapping[str, Tensor], layers: list[str], pipeline: Any) -> Converted:
    """A file that the converter refuses as a whole is given to it layer by layer, to find what it reads."""
    with contextlib.suppress(*UNREAD, RuntimeError):
        return Converted(_convert(tensors, pipeline), _destinations(tensors, layers, pipeline), {})
    made = Converted({}, {}, {})
    for layer in layers:
        alone = {key: x for key, x in tensors.items() if layer_of(key) == layer}
        try:
            part, went = _convert(alone, pipeline), _destinations(alone, [layer], pipeline)
        except UNREAD:
            continue
        except RuntimeError as error:
            made.torn[layer] = f"does not pass diffusers' converter ({first_line(error)})"
            continue
        made.tensors.update(part)
        made.places.update(went)
    return made


def _convert(tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, Tensor]:
    made: dict[str, Tensor] = pipeline.lora_state_dict(dict(tensors))
    return {key: x for key, x in made.items() if key.startswith("transformer.") and ".lora_" in key}


def _destinations(tensors: Mapping[str, Tensor], layers: list[str], pipeline: Any) -> dict[str, list[str]]:
    """For each layer, the network's layers it arrives at: filled with its own number, which is read back."""
    number = {layer: index + 1 for index, layer in enumerate(layers)}
    ranks = {layer_of(key): x.shape[0] for key, x in tensors.items() if x.ndim > 1 and _is(key, "A")}
    probe = {
        key: torch.tensor(float(ranks.get(layer_of(key), 1)))
        if key.endswith(".alpha")
        else torch.full(x.shape, float(number[layer_of(key)]))
        for key, x in tensors.items()
    }
    went: dict[str, list[str]] = {layer: [] for layer in layers}
    for key, x in _convert(probe, pipeline).items():
        name = key.removeprefix("transformer.").rpartition(".lora_")[0]
        edges = torch.cat([x.reshape(x.shape[0], -1)[:, 0], x.flatten()[: x.shape[-1]]])
        for found in {round(value) for value in edges.tolist()} - {0}:
            places = went[layers[found - 1]]
            places += [] if name in places else [name]
    return went


def _misfit(places: list[str], made: Mapping[str, Tensor], modules: Mapping[str, Any]) -> str:
    """Why one of the file's layers fits nothing; empty where it does."""
    if not places:
        return "is not a layer that diffusers' converter knows"
    for name in places:
        if name not in modules:
            return "is not a layer of the network"
        down, up = (made.get(f"transformer.{name}.lora_{side}.weight") for side in "AB")
        if down is None or up is None:
            return f"has only one of its two matrices ({'up' if down is None else 'down'})"
        why = _wrong_shape(down, up, modules[name])
        if why:
            return why
    return ""


def _wrong_shape(down: Tensor, up: Tensor, module: Any) -> str:
    """Compared with the sizes of a linear layer or the weight of a convolution."""
    if hasattr(module, "in_features"):
        inputs, outputs = (int(module.in_features),), int(module.out_features)
    elif isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim > 1:
        inputs, outputs = tuple(module.weight.shape[1:]), int(module.weight.shape[0])
    else:
        return "is a layer without a matrix"
    if tuple(down.shape[1:]) != inputs or tuple(up.shape[:2]) != (outputs, down.shape[0]):
        shapes = f"{tuple(up.shape)} x {tuple(down.shape)}"
        return f"has matrices of {shapes}, but the layer takes {inputs[0]} numbers and makes {outputs}"
    return ""
