"""From a model's name to a network that answers: one FlowModel a pipeline class."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from imax_dist.errors import BadConfig, MissingInput
from imax_dist.models.base import FlowModel
from imax_dist.models.find import find_model
from imax_dist.models.libraries import import_libraries
from imax_dist.models.lora.merge import FittedLora, find_loras, fit_loras, merge_loras
from imax_dist.models.lora.sets import kept_weights, put_back
from imax_dist.models.precise import precise
from imax_dist.models.quantised import check_quantisation, quantisation_id
from imax_dist.models.registry import architecture_of
from imax_dist.models.spec import Lora, ModelSettings, ModelSpec

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}


class Loading(NamedTuple):
    """What is loaded besides the weights of the folder, and where to."""

    device: torch.device
    encoder_device: torch.device | None
    """Device of the text encoders; None leaves them out (ranks above 0)."""
    dtype: str | None = None
    """None: the model's own for this kind of device."""
    loras: Sequence[str] = ()
    """PATH[:WEIGHT] each, merged into the transformer's weights."""
    lora_partial: bool = False
    """Merge what fits of a LoRA, though some of its layers do not."""
    keeps_base: bool = False
    """Keep what LoRA files change in the host's memory, for ``change_loras``."""


def describe_model(name: str, *, loras: Sequence[str] = ()) -> ModelSpec:
    """The facts of a model without loading its weights into memory."""
    settings, folder = find_model(name)
    return _described(name, settings, folder, loras=loras)


def load_model(
    name: str, *, device: torch.device, dtype: str | None = None, with_text_encoders: bool = True
) -> FlowModel:
    """Load a model for ``device``, all of it or without its text encoders.

    Raises BadConfig, BadValue or MissingInput if there is no such model, dtype or network.
    """
    return load(name, Loading(device, device if with_text_encoders else None, dtype))


def load(name: str, how: Loading) -> FlowModel:
    """Load a model. Raises BadConfig, BadValue or MissingInput if something asked for is not available."""
    settings, folder = find_model(name)
    spec = _described(name, settings, folder, loras=how.loras)
    import_libraries()
    kind = how.dtype or getattr(settings.dtype, "cuda" if how.device.type == "cuda" else "cpu")
    if kind not in DTYPES:
        raise BadConfig(f"dtype {kind!r} is not known; choose {', '.join(DTYPES)}")
    fitted = fit_loras(spec, folder, partial=how.lora_partial)
    if kind == "float32" and how.device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # else convolutions round factors to 10 bits (DECISIONS 59)
    try:
        model = architecture_of(name, folder).load(
            spec, folder, device=how.device, dtype=DTYPES[kind], encoder_device=how.encoder_device
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingInput(f"model {name} does not load from {folder}: {error}") from error
    model.dtype = DTYPES[kind]  # quantised weights have one of their own
    _merge(model, fitted, folder, keeps_base=how.keeps_base)
    if DTYPES[kind] == torch.float64:
        precise(model.transformer)
    return model


def change_loras(model: FlowModel, how: Loading) -> None:
    """Put the base weights of a model loaded with ``keeps_base`` back, and merge another set of LoRA files.

    Raises what ``load`` raises of LoRA files, before anything is changed.
    """
    settings, folder = find_model(model.spec.name)
    spec = _described(model.spec.name, settings, folder, loras=how.loras)
    fitted = fit_loras(spec, folder, partial=how.lora_partial)
    put_back(model.transformer, model.base_weights)
    model.spec = spec
    _merge(model, fitted, folder, keeps_base=True)


def _merge(model: FlowModel, fitted: Sequence[FittedLora], folder: Path, *, keeps_base: bool) -> None:
    model.base_weights = kept_weights(model.transformer, fitted) if keeps_base else {}
    merge_loras(model.transformer, fitted, model.spec, folder)
    model.notes = tuple(f"lora {each.summary()}" for each in fitted)


def _described(name: str, settings: ModelSettings, folder: Path, *, loras: Sequence[str]) -> ModelSpec:
    """The model's facts. Raises BadConfig if they are not whole, or not those of the settings file."""
    try:
        spec = architecture_of(name, folder).describe(name, settings, folder)
    except (KeyError, TypeError, ValueError) as error:
        raise BadConfig(
            f"model {name}: the config.json of transformer or vae lacks a key or holds a wrong value: {error}"
        ) from error
    for key in ("vae_factor", "patch"):
        stated, found = getattr(settings, key), getattr(spec, key)
        if stated not in (None, found):
            raise BadConfig(f"model {name}: its settings say {key} {stated}, but its files make it {found}")
    if sum(spec.rope_axes) != spec.head_dim:
        raise BadConfig(
            f"model {name}: position axes {spec.rope_axes} do not add up to head_dim {spec.head_dim}"
        )
    check_quantisation(spec)
    found = find_loras(loras)
    return dataclasses.replace(spec, loras=found, weights=_changed_weights(spec, found))


def _changed_weights(spec: ModelSpec, loras: tuple[Lora, ...]) -> str:
    """The weights' hash with what is done to them; the folder's own where nothing is."""
    changes = [f"{lora.sha256} {lora.weight!r}" for lora in loras]
    if spec.settings.quantize is not None:
        changes.append(quantisation_id(spec.settings.quantize))
    if not changes:
        return spec.weights
    return hashlib.sha256("\n".join([spec.weights, *changes]).encode()).hexdigest()
