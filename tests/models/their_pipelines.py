"""diffusers' own pipelines on our noise, noise levels and prompt: what an adapter has to equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imax_dist.models.flux.packing import pack, unpack
from imax_dist.pipeline.plan import RenderPlan

LAYERS = (1, 2, 3)
"""A quarter, half and three quarters of the tiny FLUX.2 readers."""


def open_pipeline(folder: Path) -> Any:
    """The unmodified pipeline in float32, with a scheduler that takes the sigmas it is given as they are."""
    import diffusers

    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def their_latents(name: str, folder: Path, plan: RenderPlan, noise: Tensor) -> Tensor:
    """Final latents of diffusers' ``__call__`` in our layout; checks that its schedule was ours."""
    pipe = open_pipeline(folder)
    common = dict(
        prompt=plan.request.prompt,
        height=plan.native_size.height,
        width=plan.native_size.width,
        sigmas=list(plan.native_sigmas[:-1]),
        max_sequence_length=plan.spec.settings.text_tokens,
        output_type="latent",
    )
    latents = THEIRS[name](pipe, plan, noise, common)
    assert torch.equal(pipe.scheduler.sigmas.double(), torch.tensor(plan.native_sigmas).double())
    return latents


def _qwen_image(pipe: Any, plan: RenderPlan, noise: Tensor, common: dict[str, Any]) -> Tensor:
    tokens = pipe(
        **common, latents=pack(noise), negative_prompt=" ", true_cfg_scale=plan.native_guidance_scale
    ).images
    return unpack(tokens, plan.native_grid.tokens(2))


def _z_image(pipe: Any, plan: RenderPlan, noise: Tensor, common: dict[str, Any]) -> Tensor:
    images: Tensor = pipe(**common, latents=noise, guidance_scale=plan.native_guidance_scale - 1.0).images
    return images


def _flux2_dev(pipe: Any, plan: RenderPlan, noise: Tensor, common: dict[str, Any]) -> Tensor:
    tokens = pipe(
        **common,
        latents=pipe._patchify_latents(noise),
        guidance_scale=plan.native_guidance_scale,
        text_encoder_out_layers=LAYERS,
    ).images
    return unpack(tokens, plan.native_grid.tokens(2))


def _flux2_klein(pipe: Any, plan: RenderPlan, noise: Tensor, common: dict[str, Any]) -> Tensor:
    """klein returns latents as its VAE takes them; the batch norm is taken off again here."""
    images = pipe(
        **common,
        latents=pipe._patchify_latents(noise),
        guidance_scale=plan.native_guidance_scale,
        text_encoder_out_layers=LAYERS,
    ).images
    norm = pipe.vae.bn
    deviation = torch.sqrt(norm.running_var + pipe.vae.config.batch_norm_eps).view(1, -1, 1, 1)
    patches = (pipe._patchify_latents(images) - norm.running_mean.view(1, -1, 1, 1)) / deviation
    latents: Tensor = pipe._unpatchify_latents(patches)
    return latents


THEIRS: dict[str, Callable[[Any, RenderPlan, Tensor, dict[str, Any]], Tensor]] = {
    "qwen-image": _qwen_image,
    "z-image-turbo": _z_image,
    "flux2-dev": _flux2_dev,
    "flux2-klein": _flux2_klein,
}
