"""diffusers' own pipelines, called as a user would call them, on our noise and our noise levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from assembled_pipelines import flux3_pipeline, plain_scheduler, qwen_image21_pipeline
from torch import Tensor

from imax_dist.models.patches import pack, unpack
from imax_dist.models.weights import pipeline_class
from imax_dist.pipeline.plan import PosterPlan


def as_they_are(images: Tensor, plan: PosterPlan) -> Tensor:
    """Latents that the pipeline returns unpacked."""
    return images


class Theirs(NamedTuple):
    """How one pipeline is called, and how its latents become (B, C, H, W)."""

    call: Callable[..., Tensor]
    """(pipeline, plan, noise at native size, output_type=) -> its ``images``."""
    unpacked: Callable[[Tensor, PosterPlan], Tensor] = as_they_are

    def latents(self, pipe: Any, plan: PosterPlan, noise: Tensor) -> Tensor:
        """Final latents of the pipeline, in our layout."""
        return self.unpacked(self.call(pipe, plan, noise, output_type="latent"), plan)

    def pixels(self, pipe: Any, plan: PosterPlan, noise: Tensor) -> Tensor:
        """The pipeline's picture, (1, 3, H, W) in [0, 1]."""
        return self.call(pipe, plan, noise, output_type="pt")


def pipeline(folder: Path) -> Any:
    """The unmodified pipeline; its scheduler takes the sigmas it is given as they are."""
    from diffusers import DiffusionPipeline

    if (folder / "modular_model_index.json").is_file():
        return flux3_pipeline(folder)
    if pipeline_class(folder) == "QwenImage21Pipeline":
        return qwen_image21_pipeline(folder)
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = plain_scheduler()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def common(plan: PosterPlan) -> dict[str, Any]:
    """What every pipeline's call takes."""
    return dict(
        prompt=plan.request.prompt,
        height=plan.native_size.height,
        width=plan.native_size.width,
        sigmas=list(plan.native.sigmas[:-1]),
        num_inference_steps=len(plan.native.sigmas) - 1,
    )


def flux(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """FluxPipeline; a model without a guidance input takes true_cfg_scale."""
    distilled = plan.spec.guidance == "distilled"
    scale = {"guidance_scale": plan.native.guidance_scale} if distilled else {}
    if not distilled:
        scale = {"true_cfg_scale": plan.native.guidance_scale, "negative_prompt": ""}
    length = {"max_sequence_length": plan.spec.settings.text_tokens}
    images: Tensor = pipe(**common(plan), latents=pack(noise), **length, **scale, **output).images
    return images


def from_flux_tokens(tokens: Tensor, plan: PosterPlan) -> Tensor:
    """Packed latents, as FLUX.1, FLUX.2-dev and Qwen-Image return them."""
    return unpack(tokens, plan.native.grid.tokens(2))


def lumina(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """LuminaPipeline with its own scaled positions and attention off: they are ours to switch."""
    pipe.default_image_size = (
        plan.native_size.width * plan.native_size.height
    ) ** 0.5  # no scaling of positions
    images: Tensor = pipe(
        **common(plan),
        latents=noise,
        guidance_scale=plan.native.guidance_scale,
        proportional_attn=False,
        clean_caption=False,
        **output,
    ).images
    return images


def lumina2(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """Lumina2Pipeline with its own defaults: system prompt, guidance normalised along rows."""
    images: Tensor = pipe(
        **common(plan), latents=noise, guidance_scale=plan.native.guidance_scale, **output
    ).images
    return images


def qwen_image(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """QwenImagePipeline with the negative prompt of its card."""
    images: Tensor = pipe(
        **common(plan),
        latents=pack(noise),
        negative_prompt=" ",
        true_cfg_scale=plan.native.guidance_scale,
        max_sequence_length=plan.spec.settings.text_tokens,
        **output,
    ).images
    return images


def z_image(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """ZImagePipeline, whose guidance scale is 0 where others have 1."""
    images: Tensor = pipe(
        **common(plan),
        latents=noise,
        guidance_scale=plan.native.guidance_scale - 1.0,
        max_sequence_length=plan.spec.settings.text_tokens,
        **output,
    ).images
    return images


def flux2(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """Flux2Pipeline or Flux2KleinPipeline; the layers are those of the tiny readers with four."""
    images: Tensor = pipe(
        **common(plan),
        latents=pipe._patchify_latents(noise),
        guidance_scale=plan.native.guidance_scale,
        text_encoder_out_layers=(1, 2, 3),
        max_sequence_length=plan.spec.settings.text_tokens,
        **output,
    ).images
    return images


def from_klein_latents(pipe: Any, latents: Tensor) -> Tensor:
    """klein returns latents as its VAE takes them; the batch norm is put on again."""
    norm = pipe.vae.bn
    mean, variance = (part.view(1, -1, 1, 1) for part in (norm.running_mean, norm.running_var))
    patches = (pipe._patchify_latents(latents) - mean) / torch.sqrt(variance + pipe.vae.config.batch_norm_eps)
    unpatched: Tensor = pipe._unpatchify_latents(patches)
    return unpatched


def flux2_klein(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    images = flux2(pipe, plan, noise, **output)
    return from_klein_latents(pipe, images) if output["output_type"] == "latent" else images


def sd3(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """StableDiffusion3Pipeline; ``max_sequence_length`` is T5's part of the text."""
    images: Tensor = pipe(
        **common(plan),
        latents=noise,
        guidance_scale=plan.native.guidance_scale,
        max_sequence_length=plan.spec.settings.text_tokens,
        **output,
    ).images
    return images


def chroma(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """ChromaPipeline, with its own prompts cut to what their masks show: it adds masks to the attention."""
    length = plan.spec.settings.text_tokens
    made = pipe.encode_prompt(plan.request.prompt, "", max_sequence_length=length)
    (states, _, mask), (negative, _, other) = made[:3], made[3:]
    states, negative = (x[:, : int(own.sum())] for x, own in ((states, mask), (negative, other)))
    call = {name: value for name, value in common(plan).items() if name != "prompt"}
    images: Tensor = pipe(
        **call,
        latents=pack(noise),
        prompt_embeds=states,
        prompt_attention_mask=torch.ones(states.shape[:2]),
        negative_prompt_embeds=negative,
        negative_prompt_attention_mask=torch.ones(negative.shape[:2]),
        guidance_scale=plan.native.guidance_scale,
        **output,
    ).images
    return images


def krea2(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """Krea2Pipeline, whose guidance scale is 0 where others have 1."""
    images: Tensor = pipe(
        **common(plan),
        latents=pack(noise),
        guidance_scale=plan.native.guidance_scale - 1.0,
        max_sequence_length=plan.spec.settings.text_tokens,
        **output,
    ).images
    return images


def hunyuan_image(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """HunyuanImagePipeline; the scale of its guiders' first step is given, that of the others goes along."""
    scale = plan.native.guidance_scale
    guiders = {name: getattr(pipe, name) for name in ("guider", "ocr_guider") if getattr(pipe, name)}
    for name, guider in guiders.items():
        times = scale / guider.config.guidance_scale
        later = guider.config.adaptive_projected_guidance_scale * times
        given = guider.new(guidance_scale=scale, adaptive_projected_guidance_scale=later)
        setattr(pipe, name, given)
    images: Tensor = pipe(**common(plan), latents=noise, distilled_guidance_scale=scale, **output).images
    for name, guider in guiders.items():
        setattr(pipe, name, guider)
    return images


def qwen_image21(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """QwenImage21Pipeline, whose sides are 16 pixels a latent pixel whatever its VAE; ours has 8."""
    sides = {"height": 16 * noise.shape[2], "width": 16 * noise.shape[3]}
    images: Tensor = pipe(
        **{**common(plan), **sides},
        latents=noise.flatten(2).transpose(1, 2),
        negative_prompt="",
        true_cfg_scale=plan.native.guidance_scale,
        **output,
    ).images
    return images if output["output_type"] == "latent" else images[:, :3]


def from_qwen_image21_tokens(tokens: Tensor, plan: PosterPlan) -> Tensor:
    """(B, h w, C)."""
    grid = plan.native.grid
    return tokens.transpose(1, 2).unflatten(2, (grid.height, grid.width))


def flux3(pipe: Any, plan: PosterPlan, noise: Tensor, **output: str) -> Tensor:
    """Flux3ModularPipeline, whose guidance is a component, or its distilled form, which has none."""
    from diffusers import ClassifierFreeGuidance

    if plan.spec.guidance != "none":
        pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=plan.native.guidance_scale))
    grid = plan.native.grid.tokens(2)
    packed = pack(noise).transpose(1, 2).unflatten(2, (grid.height, grid.width))
    wanted = "latents" if output["output_type"] == "latent" else "images"
    made: Tensor = pipe(
        **common(plan),
        latents=packed,
        max_sequence_length=plan.spec.settings.text_tokens,
        output_type="pt",
        output=wanted,
    )
    return made


def from_flux3_latents(latents: Tensor, plan: PosterPlan) -> Tensor:
    """(B, 4 C, h, w)."""
    return unpack(latents.flatten(2).transpose(1, 2), plan.native.grid.tokens(2))


THEIRS: dict[str, Theirs] = {
    "flux3-klein-base": Theirs(flux3, from_flux3_latents),
    "flux3-klein": Theirs(flux3, from_flux3_latents),
    "flux-dev": Theirs(flux, from_flux_tokens),
    "flux-schnell": Theirs(flux, from_flux_tokens),
    "lumina-next": Theirs(lumina),
    "lumina-image-2": Theirs(lumina2),
    "flux2-dev": Theirs(flux2, from_flux_tokens),
    "flux2-klein": Theirs(flux2_klein),
    "chroma": Theirs(chroma, from_flux_tokens),
    "hunyuan-image-2.1": Theirs(hunyuan_image),
    "hunyuan-image-2.1-distilled": Theirs(hunyuan_image),
    "krea-2": Theirs(krea2, from_flux_tokens),
    "qwen-image": Theirs(qwen_image, from_flux_tokens),
    "qwen-image-2.1": Theirs(qwen_image21, from_qwen_image21_tokens),
    "sd3.5-medium": Theirs(sd3),
    "z-image-turbo": Theirs(z_image),
}
"""By the name of the tiny pipeline."""
