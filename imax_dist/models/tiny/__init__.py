"""Tiny pipelines of every supported architecture, by the name of the model they stand for.

For tests and laptops: real classes, real tokenizers, random weights; the pictures are noise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from imax_dist.errors import BadValue
from imax_dist.models.tiny import (
    flux2,
    flux3,
    hunyuan_image,
    krea2,
    lumina,
    lumina2,
    qwen_image,
    qwen_image21,
    sd3,
    z_image,
)
from imax_dist.models.tiny.flux import (
    make_tiny_chroma,
    make_tiny_dev,
    make_tiny_fill,
    make_tiny_kontext,
    make_tiny_schnell,
)

TINY: dict[str, Callable[[Path], Path]] = {
    "flux-dev": make_tiny_dev,
    "flux-schnell": make_tiny_schnell,
    "lumina-next": lumina.make_tiny,
    "lumina-image-2": lumina2.make_tiny,
    "flux2-dev": flux2.make_tiny_dev,
    "flux2-klein": flux2.make_tiny_klein,
    "flux3-klein-base": flux3.make_tiny,
    "flux3-klein": flux3.make_tiny_distilled,
    "chroma": make_tiny_chroma,
    "hunyuan-image-2.1": hunyuan_image.make_tiny,
    "hunyuan-image-2.1-distilled": hunyuan_image.make_tiny_distilled,
    "krea-2": krea2.make_tiny,
    "qwen-image": qwen_image.make_tiny,
    "qwen-image-2.1": qwen_image21.make_tiny,
    "sd3.5-medium": sd3.make_tiny,
    "z-image-turbo": z_image.make_tiny,
}
EDITORS: dict[str, Callable[[Path], Path]] = {
    "flux-kontext": make_tiny_kontext,
    "flux-fill": make_tiny_fill,
    "qwen-image-edit": qwen_image.make_tiny_edit,
    "qwen-image-edit-2511": qwen_image.make_tiny_edit_plus,
}
"""Those that are shown a picture."""


def make_tiny(name: str, folder: Path) -> Path:
    """Write the tiny pipeline of ``name``. Raises BadValue for an unknown name or a folder in use."""
    made = {**TINY, **EDITORS}
    if name not in made:
        raise BadValue(f"there is no tiny pipeline of {name!r}; choose {', '.join(made)}")
    if folder.exists() and any(folder.iterdir()):
        raise BadValue(f"{folder} is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # biases keep the libraries' own start values: the same ones every time
        return made[name](folder)
