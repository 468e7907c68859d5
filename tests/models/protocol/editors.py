"""Editors shown a picture: their tiny pipelines, a picture, and diffusers' own calls on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from their_pipelines import common, from_flux_tokens, pipeline
from torch import Tensor

from imax_dist.models.networks.qwen_image_edit import Reader, load_reader
from imax_dist.models.patches import pack
from imax_dist.models.weights import pipeline_index
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


def qwen_image_edit(pipe: Any, plan: PosterPlan, noise: Tensor, picture: Pixels, one: PassPlan) -> Tensor:
    """QwenImageEditPipeline or its Plus, told another area than 1024 x 1024: the picture as it is."""
    del one
    module = sys.modules[type(pipe).__module__]
    image = Image.fromarray(((picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    own, size = module.calculate_dimensions, (image.width, image.height)

    def as_it_is(area: int, ratio: float) -> tuple[Any, ...]:
        return (*size, *own(area, ratio)[2:])

    module.calculate_dimensions = as_it_is
    try:
        tokens = pipe(
            image=image,
            **common(plan),
            latents=pack(noise),
            negative_prompt=" ",
            true_cfg_scale=plan.native.guidance_scale,
            output_type="latent",
        ).images
    finally:
        module.calculate_dimensions = own
    return from_flux_tokens(tokens, plan)


def edit_pipeline(folder: Path) -> Any:
    """The unmodified pipeline; with a processor that prepares pictures without torchvision's videos."""
    import diffusers

    name = pipeline_index(folder)["_class_name"]
    if "Qwen" not in name:
        return pipeline(folder)
    reader = load_reader(folder, device=torch.device("cpu"), dtype=torch.float32)
    parts = {
        name: each.from_pretrained(folder / name, torch_dtype=torch.float32).eval()
        for name, each in (
            ("transformer", diffusers.QwenImageTransformer2DModel),
            ("vae", diffusers.AutoencoderKLQwenImage),
        )
    }
    pipe = getattr(diffusers, name)(
        **parts,
        text_encoder=reader.network,
        tokenizer=reader.tokenizer,
        processor=_processor(reader),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _processor(reader: Reader) -> Any:
    """transformers' own, but for its check that it can read videos, which needs torchvision."""
    from transformers import Qwen2VLProcessor

    class WithoutVideos(Qwen2VLProcessor):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(argument)

    return WithoutVideos(image_processor=reader.pictures, tokenizer=reader.tokenizer)


class Editor(NamedTuple):
    """How diffusers calls it, and what of a request makes it edit."""

    call: Callable[..., Tensor]
    asks: dict[str, Any]


EDITORS: dict[str, Editor] = {
    "flux-kontext": Editor(kontext, {"edit": True}),
    "flux-fill": Editor(fill, {"region": "32,16,64,48"}),
    "qwen-image-edit": Editor(qwen_image_edit, {"edit": True}),
    "qwen-image-edit-2511": Editor(qwen_image_edit, {"edit": True}),
}
"""By the name of the tiny pipeline."""


def shown(name: str, folder: Path, size: str) -> dict[str, Any]:
    """What makes a request of an editor: a picture of ``size`` in ``folder``, and how it is asked."""
    if name not in EDITORS:
        return {}
    return {"guide": str(picture_file(folder / "own.png", *map(int, size.split("x")))), **EDITORS[name].asks}
