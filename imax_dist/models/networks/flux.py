"""FLUX: pack, split over the ranks, run the unmodified transformer, gather, unpack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import FlowModel, PassInputs
from imax_dist.models.components import Configs, packed_spec
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import (
    AttentionCall,
    JointProcessor,
    TableAsIds,
    begin_attention,
    ids_of,
    image_heads,
)
from imax_dist.models.patches import joint_position_ids, pack, unpack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder, padded_ids
from imax_dist.models.token_shards import TokenShards
from imax_dist.shapes import Latents, RopeTable


class TextEncoders(NamedTuple):
    """CLIP and T5."""

    clip: TextEncoder
    t5: TextEncoder


def load_text_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load both encoders from a FLUX pipeline folder."""
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    load = partial(load_text_encoder, folder=folder, device=device, dtype=dtype)
    clip = load(CLIPTextModel, tokenizer=CLIPTokenizer)
    return TextEncoders(clip, load(T5EncoderModel, tokenizer=T5TokenizerFast, number="_2"))


@torch.no_grad()
def encode_text(encoders: TextEncoders, prompt: str, *, tokens: int) -> tuple[Tensor, Tensor]:
    """T5 states (1, tokens, D) and pooled CLIP vector (1, D'); the prompt is padded or cut to ``tokens``."""
    clip, t5 = encoders
    clip_ids = padded_ids(clip, prompt, length=clip.tokenizer.model_max_length)
    states = t5.network(padded_ids(t5, prompt, length=tokens)).last_hidden_state
    return states, clip.network(clip_ids).pooler_output


def attention_beside_mlp(
    block: Any,
    *,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    temb: Tensor,
    image_rotary_emb: tuple[Tensor, Tensor],
    joint_attention_kwargs: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """A single-stream block's forward, its MLP computed while the exchange of heads travels; the same bits.

    diffusers computes the MLP first, so that every rank would wait for the exchange (DECISIONS 98).
    """
    text = encoder_hidden_states.shape[1]
    states = torch.cat([encoder_hidden_states, hidden_states], dim=1)
    normed, gate = block.norm(states, emb=temb)
    call = AttentionCall(RopeTable(*image_rotary_emb), **joint_attention_kwargs)
    finish = begin_attention(image_heads(block.attn, normed), call)
    mlp = block.act_mlp(block.proj_mlp(normed))
    states = states + gate.unsqueeze(1) * block.proj_out(torch.cat([finish(), mlp], dim=2))
    if states.dtype == torch.float16:
        states = states.clip(-65504, 65504)
    return states[:, :text], states[:, text:]


class FluxModel(FlowModel):
    """``encoders`` are a TextEncoders."""

    def prepare(self, transformer: Any) -> None:
        from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

        transformer.pos_embed = TableAsIds()
        transformer.set_attn_processor(JointProcessor())
        for block in transformer.single_transformer_blocks:
            if type(block) is FluxSingleTransformerBlock:
                block.forward = MethodType(attention_beside_mlp, block)

    def embed(self, text: str) -> Prompt:
        states, pooled = encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)
        return {"states": states, "pooled": pooled}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        grid, table, states, shares = self.joint_pass(x, prompt["states"], inputs)
        text_ids, image_ids = shares.cached_by_table("ids", table, lambda: ids_of(shares.tables(table)))
        tokens = self.transformer(
            hidden_states=self.image_states(x, inputs.context, shares),
            timestep=self.per_image(sigma, x),
            encoder_hidden_states=states,
            txt_ids=text_ids,
            img_ids=image_ids,
            joint_attention_kwargs=shares.attention,
            return_dict=False,
            **self.other_inputs(x, prompt, inputs),
        )[0]
        return unpack(shares.gather(tokens, dim=1), grid)

    def other_inputs(self, x: Latents, prompt: Prompt, inputs: PassInputs) -> dict[str, Any]:
        """What the transformer takes besides image, time, text and their positions."""
        guidance = None if inputs.scale is None else self.per_image(inputs.scale, x)
        return {"pooled_projections": prompt["pooled"], "guidance": guidance}

    def image_states(self, x: Latents, context: Latents | None, shares: TokenShards) -> Tensor:
        """This rank's image tokens, and those of the picture an editor is shown: (B, tokens, channels)."""
        return shares.beside(shares.image(pack(x), dim=1), context, pack)


ROPE_THETA = 10_000.0
"""Fixed in FluxTransformer2DModel; no configuration key holds it."""
ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
AXES = (16, 56, 56)
"""FluxTransformer2DModel's own default; the released FLUX.1 configurations do not hold the key."""


def with_rope(configs: Configs) -> Configs:
    """With the positions that diffusers' FLUX.1 and Chroma have."""
    return configs._replace(
        transformer={"axes_dims_rope": AXES, **configs.transformer, "rope_theta": ROPE_THETA}
    )


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    spec = packed_spec(name, settings, with_rope(configs), weights)
    return replace(spec, guidance="distilled") if configs.transformer.get("guidance_embeds") else spec


def settings_name(transformer: Mapping[str, Any]) -> str:
    """FLUX.1-dev's settings for a model that takes its guidance as an input, else FLUX.1-schnell's."""
    return "flux-dev" if transformer.get("guidance_embeds") else "flux-schnell"


ARCHITECTURE = Architecture(
    facts=facts,
    model=FluxModel,
    networks=("FluxTransformer2DModel", "AutoencoderKL"),
    load_text=load_text_encoders,
    settings=settings_name,
    encoders=ENCODERS,
    tokenizers=TOKENIZERS,
)
