"""From a model's name to a network that answers: one adapter a pipeline class."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from imax_dist.errors import BadConfig, BadValue, MissingInput
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import FlowModel, ModelSettings, ModelSpec
from imax_dist.models.flux import load as flux
from imax_dist.models.flux2 import load as flux2
from imax_dist.models.lumina import load as lumina
from imax_dist.models.lumina2 import load as lumina2
from imax_dist.models.qwen_image import load as qwen_image
from imax_dist.models.sd3 import load as sd3
from imax_dist.models.weights import find_model, pipeline_class
from imax_dist.models.z_image import load as z_image

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}

ARCHITECTURES: dict[str, Architecture] = {
    "FluxPipeline": flux.ARCHITECTURE,
    "LuminaPipeline": lumina.ARCHITECTURE,
    "Lumina2Pipeline": lumina2.ARCHITECTURE,
    "Flux2Pipeline": flux2.ARCHITECTURE,
    "Flux2KleinPipeline": flux2.ARCHITECTURE,
    "QwenImagePipeline": qwen_image.ARCHITECTURE,
    "StableDiffusion3Pipeline": sd3.ARCHITECTURE,
    "ZImagePipeline": z_image.ARCHITECTURE,
}
"""One entry a diffusers pipeline class."""
WITHOUT_ROPE = ("StableDiffusion3Pipeline", "PixArtSigmaPipeline", "PixArtAlphaPipeline", "SanaPipeline")


def describe_model(name: str) -> ModelSpec:
    """The facts of a model without loading its weights into memory."""
    settings, folder = find_model(name)
    return _described(name, settings, folder)


def load_model(name: str, *, device: torch.device, dtype: str | None = None, text: bool = True) -> FlowModel:
    """Load a model for ``device``; ``text`` False leaves the text encoders out (ranks above 0).

    Raises BadConfig, BadValue or MissingInput if there is no such model, dtype or adapter.
    """
    settings, folder = find_model(name)
    spec = _described(name, settings, folder)
    kind = dtype or getattr(settings.dtype, "cuda" if device.type == "cuda" else "cpu")
    if kind not in DTYPES:
        raise BadConfig(f"dtype {kind!r} is not known; choose {', '.join(DTYPES)}")
    architecture = architecture_of(name, folder)
    try:
        return architecture.load(spec, folder, device=device, dtype=DTYPES[kind], text=text)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingInput(f"model {name} does not load from {folder}: {error}") from error


def _described(name: str, settings: ModelSettings, folder: Path) -> ModelSpec:
    """The adapter's facts. Raises BadConfig if they are not whole, or not those of the settings file."""
    try:
        spec = architecture_of(name, folder).describe(name, settings, folder)
    except (KeyError, TypeError, ValueError) as error:
        raise BadConfig(
            f"model {name}: the config.json of transformer or vae lacks a key or holds a wrong value: {error}"
        ) from error
    for key in ("vae_factor", "patch"):
        said, found = getattr(settings, key), getattr(spec, key)
        if said not in (None, found):
            raise BadConfig(f"model {name}: its settings say {key} {said}, but its files make it {found}")
    if sum(spec.rope_axes) != spec.head_dim:
        raise BadConfig(
            f"model {name}: position axes {spec.rope_axes} do not add up to head_dim {spec.head_dim}"
        )
    return spec


def architecture_of(name: str, folder: Path) -> Architecture:
    """The entry of the folder's pipeline class. Raises BadValue for a class without one."""
    kind = pipeline_class(folder)
    if kind in ARCHITECTURES:
        return ARCHITECTURES[kind]
    if kind in WITHOUT_ROPE:
        raise BadValue(
            f"model {name} is a {kind}: its transformer has no rotary positions, which the method scales; "
            f"supported: {', '.join(ARCHITECTURES)}"
        )
    raise BadValue(f"model {name} is a {kind}; supported: {', '.join(ARCHITECTURES)}")
