"""Chroma: FLUX.1's network with its modulation from a network of its own, one text encoder, a second prompt.

Its text ends with one token of padding, which it was trained to see; the rest is cut away. diffusers adds its
mask of ones and zeros to the attention as a bias instead (DECISIONS 92).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imax_dist.models.architecture import Architecture
from imax_dist.models.base import FlowModel, PassInputs
from imax_dist.models.components import Configs, check_packed, vae_factor
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import JointProcessor, TableAsIds, ids_of
from imax_dist.models.networks.flux import AXES, PATCH, ROPE_THETA, joint_position_ids
from imax_dist.models.patches import pack, unpack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.shapes import Latents


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load T5 from a Chroma pipeline folder."""
    from transformers import T5EncoderModel, T5TokenizerFast

    return load_text_encoder(T5EncoderModel, folder, device=device, dtype=dtype, tokenizer=T5TokenizerFast)


@torch.no_grad()
def encode_text(t5: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, D) of the prompt and one token of padding, T at most ``tokens``."""
    encoded = t5.tokenizer(
        [prompt], padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    ).to(t5.network.device)
    states: Tensor = t5.network(encoded.input_ids, attention_mask=encoded.attention_mask).last_hidden_state
    return states[:, : int(encoded.attention_mask.sum()) + 1]


class ChromaModel(FlowModel):
    """``encoders`` are a TextEncoder of T5."""

    def prepare(self, transformer: Any) -> None:
        transformer.pos_embed = TableAsIds()
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
            block.attn.set_processor(JointProcessor())

    def embed(self, text: str) -> Prompt:
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        grid, table, states, shares = self.joint_pass(x, prompt["states"], inputs)
        text_ids, image_ids = shares.cached_by_table("ids", table, lambda: ids_of(shares.tables(table)))
        tokens = self.transformer(
            hidden_states=shares.image(pack(x), dim=1),
            timestep=self.per_image(sigma, x),
            encoder_hidden_states=states,
            txt_ids=text_ids,
            img_ids=image_ids,
            joint_attention_kwargs=shares.attention,
            return_dict=False,
        )[0]
        return unpack(shares.gather(tokens, dim=1), grid)


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer, vae = configs.transformer, configs.vae
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=int(transformer["attention_head_dim"]),
        rope_axes=tuple(int(axis) for axis in transformer.get("axes_dims_rope", AXES)),
        rope_theta=ROPE_THETA,
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="classifier_free",
    )
    check_packed(spec, int(transformer["in_channels"]))
    return spec


def settings_name(transformer: Mapping[str, Any]) -> str:
    """Chroma1-HD's."""
    del transformer
    return "chroma"


ARCHITECTURE = Architecture(
    facts=facts,
    model=ChromaModel,
    networks=("ChromaTransformer2DModel", "AutoencoderKL"),
    load_text=load_encoder,
    settings=settings_name,
)
