"""From a model's name to a network that answers: one adapter a pipeline class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from imax_dist.errors import BadConfig, BadValue
from imax_dist.models.base import FlowModel, ModelSettings, ModelSpec
from imax_dist.models.flux import load as flux
from imax_dist.models.weights import find_model, pipeline_class

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}
Describe = Callable[[str, ModelSettings, Path], ModelSpec]
Load = Callable[..., FlowModel]

ADAPTERS: dict[str, tuple[Describe, Load]] = {"FluxPipeline": (flux.describe, flux.load)}
WITHOUT_ROPE = ("StableDiffusion3Pipeline", "PixArtSigmaPipeline", "PixArtAlphaPipeline", "SanaPipeline")


def describe_model(name: str) -> ModelSpec:
    """The facts of a model without loading its weights into memory."""
    settings, folder = find_model(name)
    return _adapter(name, folder)[0](name, settings, folder)


def load_model(name: str, *, device: torch.device, dtype: str | None = None, text: bool = True) -> FlowModel:
    """Load a model for ``device``; ``text`` False leaves the text encoders out (ranks above 0).

    Raises BadConfig, BadValue or MissingInput if there is no such model, dtype or adapter.
    """
    settings, folder = find_model(name)
    describe, load = _adapter(name, folder)
    kind = dtype or getattr(settings.dtype, "cuda" if device.type == "cuda" else "cpu")
    if kind not in DTYPES:
        raise BadConfig(f"dtype {kind!r} is not known; choose {', '.join(DTYPES)}")
    return load(describe(name, settings, folder), folder, device=device, dtype=DTYPES[kind], text=text)


def _adapter(name: str, folder: Path) -> tuple[Describe, Load]:
    kind = pipeline_class(folder)
    if kind in ADAPTERS:
        return ADAPTERS[kind]
    if kind in WITHOUT_ROPE:
        raise BadValue(
            f"model {name} is a {kind}: its transformer has no rotary positions, which the method scales; "
            f"supported: {', '.join(ADAPTERS)}"
        )
    raise BadValue(f"model {name} is a {kind}; supported: {', '.join(ADAPTERS)}")
