"""Editors shown a picture: their tiny pipelines, a picture, and diffusers' own calls on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from their_pipelines import common, from_flux_tokens
from torch import Tensor

from imax_dist.models.patches import pack
from imax_dist.pipeline.pass_plan import PassPlan
from imax_dist.pipeline.plan import PosterPlan
from imax_dist.shapes import Pixels


def picture_file(path: Path, width: int, height: int) -> Path:
    """A smooth random picture."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(20, 236, (5, 5, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def kontext(pipe: Any, plan: PosterPlan, noise: Tensor, picture: Pixels, one: PassPlan) -> Tensor:
    """FluxKontextPipeline; the picture as it is, not at one of the sizes it was trained on."""
    del one
    tokens = pipe(
        image=picture / 2 + 0.5,
        **common(plan),
        max_area=plan.native_size.area,
        _auto_resize=False,
        latents=pack(noise),
        guidance_scale=plan.native.guidance_scale,
        max_sequence_length=plan.spec.settings.text_tokens,
        output_type="latent",
    ).images
    return from_flux_tokens(tokens, plan)


def fill(pipe: Any, plan: PosterPlan, noise: Tensor, picture: Pixels, one: PassPlan) -> Tensor:
    """FluxFillPipeline; it draws from the posterior of the picture, and is given the mean that we take."""
    region = one.region
    assert region is not None
    mask = torch.zeros(1, 1, *picture.shape[2:])
    mask[:, :, region.top : region.top + region.height, region.left : region.left + region.width] = 1.0
    with _mean_posterior(pipe.vae):
        tokens = pipe(
            image=picture / 2 + 0.5,
            mask_image=mask,
            **common(plan),
            latents=pack(noise),
            guidance_scale=plan.native.guidance_scale,
            max_sequence_length=plan.spec.settings.text_tokens,
            output_type="latent",
        ).images
    return from_flux_tokens(tokens, plan)


@contextmanager
def _mean_posterior(vae: Any) -> Any:
    own = vae.encode

    def encode(pixels: Tensor) -> Any:
        mean = own(pixels).latent_dist.mode()
        return SimpleNamespace(latents=mean)

    vae.encode = encode
    yield
    vae.encode = own


class Editor(NamedTuple):
    """How diffusers calls it, and what of a request makes it edit."""

    call: Callable[..., Tensor]
    asks: dict[str, Any]


EDITORS: dict[str, Editor] = {
    "flux-kontext": Editor(kontext, {"edit": True}),
    "flux-fill": Editor(fill, {"region": "32,16,64,48"}),
}
"""By the name of the tiny pipeline."""
