"""FLUX.2: pack, split over the ranks, run the unmodified transformer, gather, unpack.

Latents are the VAE's own 32 channels at 1/8 of the image, as FLUX.1's: what diffusers keeps as 128 channels
at 1/16 is their 2 x 2 patches. FLUX.2 normalises each of the 128 with the VAE's batch norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import PassInputs
from imax_dist.models.components import Configs, packed_spec
from imax_dist.models.conditioning import Prompt
from imax_dist.models.files.encoder_files import WHOLE_LAYERS
from imax_dist.models.joint_attention import AttentionCall, JointProcessor, TableAsIds, attend
from imax_dist.models.networks.flux import FluxModel
from imax_dist.models.patches import image_position_ids, pack, unpack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.models.weights import component_config, pipeline_index
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Latents, PositionIds, RopeTable


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, (0, row, column of the copy, n) for token n, then the image, (0, row, column, 0)."""
    place = torch.arange(text_tokens, dtype=torch.float64)
    zero = torch.zeros_like(place)
    texts = [torch.stack([zero, zero + row, zero + column, place], dim=1) for row, column in copies.offsets]
    image = image_position_ids(grid)
    return torch.cat([*texts, torch.cat([image, image.new_zeros(len(image), 1)], dim=1)])


class ParallelBlockProcessor:
    """In the place of diffusers' Flux2ParallelSelfAttnProcessor; no state between calls."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        text_weight: int = 1,
    ) -> Tensor:
        assert attention_mask is None, "FLUX.2 attends to its text's padding, as it was trained"
        assert engine is not None
        assert layout is not None
        assert image_rotary_emb is not None
        heads, hidden = attn.to_qkv_mlp_proj(hidden_states).split(
            [3 * attn.inner_dim, attn.mlp_hidden_dim * attn.mlp_mult_factor], dim=-1
        )
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in heads.chunk(3, dim=-1))
        call = AttentionCall(RopeTable(*image_rotary_emb), engine, layout, text_weight)
        output = attend((attn.norm_q(query), attn.norm_k(key), value), call)
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(hidden)], dim=-1))  # type: ignore[no-any-return]


class Flux2Encoder(NamedTuple):
    """``is_klein`` tells whose messages the encoder expects."""

    encoder: TextEncoder
    is_klein: bool
    layers: tuple[int, ...]
    """The states that are read, a quarter of the whole network's depth apart; 0 is its embedding."""


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Flux2Encoder:
    """Load tokenizer and encoder; of dev's PixtralProcessor the tokenizer is all that text needs.

    klein's head over words goes unread; dev's Mistral comes with its eye, or without in a file of its own.
    """
    from transformers import Mistral3ForConditionalGeneration, MistralModel, Qwen3Model

    is_klein = pipeline_index(folder)["_class_name"] == KLEIN
    config = component_config(folder, "text_encoder")
    kind = MistralModel if config["model_type"] == "mistral" else Mistral3ForConditionalGeneration
    encoder = load_text_encoder(Qwen3Model if is_klein else kind, folder, device=device, dtype=dtype)
    return Flux2Encoder(encoder, is_klein, tuple(whole_depth(config) * quarter // 4 for quarter in (1, 2, 3)))


def whole_depth(config: Mapping[str, Any]) -> int:
    """Layers of an encoder by its config.json, those that its file leaves out included."""
    own = config.get("text_config", config)["num_hidden_layers"]
    return int(config.get(WHOLE_LAYERS, own))


@torch.no_grad()
def encode_text(encoder: Flux2Encoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, tokens, 3 D); the prompt is padded or cut to ``tokens``."""
    make_inputs = _klein_inputs if encoder.is_klein else _dev_inputs
    inputs = make_inputs(encoder.encoder.tokenizer, prompt, tokens)
    network = encoder.encoder.network
    headless = {"logits_to_keep": 1} if hasattr(network, "lm_head") else {}  # no words are read from a head
    states = network(
        input_ids=inputs["input_ids"].to(network.device),
        attention_mask=inputs["attention_mask"].to(network.device),
        output_hidden_states=True,
        use_cache=False,
        **headless,
    ).hidden_states
    return torch.cat([states[layer] for layer in encoder.layers], dim=-1)


def _klein_inputs(tokenizer: Any, prompt: str, tokens: int) -> Any:
    message = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return tokenizer(message, return_tensors="pt", padding="max_length", truncation=True, max_length=tokens)


def _dev_inputs(tokenizer: Any, prompt: str, tokens: int) -> Any:
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    texts = {"system": SYSTEM_MESSAGE, "user": prompt.replace("[IMG]", "")}
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()]
    return tokenizer.apply_chat_template(
        [messages],
        add_generation_prompt=False,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=tokens,
    )


class PatchNorm(NamedTuple):
    """Mean and deviation of each of a patch's numbers, (4 C,)."""

    mean: Tensor
    deviation: Tensor


class Flux2Model(FluxModel):
    """``encoders`` are a Flux2Encoder."""

    def prepare(self, transformer: Any) -> None:
        transformer.pos_embed = TableAsIds()
        for block in transformer.transformer_blocks:
            block.attn.set_processor(JointProcessor())
        for block in transformer.single_transformer_blocks:
            block.attn.set_processor(ParallelBlockProcessor())

    def embed(self, text: str) -> Prompt:
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

    position_ids = staticmethod(joint_position_ids)

    def other_inputs(self, x: Latents, prompt: Prompt, inputs: PassInputs) -> dict[str, Any]:
        del prompt
        return {"guidance": None if inputs.scale is None else self.per_image(inputs.scale, x)}

    def patch_norm(self) -> PatchNorm:
        """The VAE's batch norm, which FLUX.2 applies outside the VAE."""
        norm = self.vae.bn
        return PatchNorm(norm.running_mean, torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps))

    def scaled(self, latents: Latents) -> Latents:
        norm = self.patch_norm()
        return unpack((pack(latents) - norm.mean) / norm.deviation, self.token_grid(latents))

    def unscaled(self, latents: Latents) -> Latents:
        norm = self.patch_norm()
        patches = pack(latents.to(self.vae.dtype)) * norm.deviation + norm.mean
        return unpack(patches, self.token_grid(latents))


ROPE = {"axes_dims_rope": (32, 32, 32, 32), "rope_theta": 2000}
"""Flux2Transformer2DModel's own defaults, for configurations without the keys."""
KLEIN = "Flux2KleinPipeline"


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer, text = {**ROPE, **configs.transformer}, configs.text
    layers = whole_depth(text)
    if layers % 4:
        raise BadConfig(
            f"model {name}: the text encoder has {layers} layers, but FLUX.2 reads it a quarter, half and "
            "three quarters up, which needs a multiple of 4"
        )
    spec = packed_spec(name, settings, configs._replace(transformer=transformer), weights)
    if transformer.get("guidance_embeds", True):
        spec = replace(spec, guidance="distilled")
    elif configs.pipeline.get("is_distilled"):  # klein's few-step models, whose scale diffusers ignores
        spec = replace(spec, guidance="none")
    return with_four_axes(spec, "FLUX.2")


def with_four_axes(spec: ModelSpec, network: str) -> ModelSpec:
    """Raises BadConfig if the configuration gives channels for another number of axes."""
    spec = replace(spec, axes=("fixed", "row", "column", "fixed"))
    if len(spec.rope_axes) != len(spec.axes):
        raise BadConfig(
            f"model {spec.name}: its position axes are {spec.rope_axes}, but {network} has {len(spec.axes)}: "
            "time, row, column and place in the prompt"
        )
    return spec


def settings_name(transformer: Mapping[str, Any]) -> str:
    """FLUX.2-dev's settings for a model that takes its guidance as an input, else klein's."""
    return "flux2-dev" if transformer.get("guidance_embeds", True) else "flux2-klein"


ARCHITECTURE = Architecture(
    facts=facts,
    model=Flux2Model,
    networks=("Flux2Transformer2DModel", "AutoencoderKLFlux2"),
    load_text=load_encoder,
    settings=settings_name,
)
