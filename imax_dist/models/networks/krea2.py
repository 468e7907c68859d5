"""Krea 2: diffusers' blocks, unmodified, in the order of its forward.

``Krea2Transformer2DModel.forward`` takes nothing that reaches its attention: its blocks are called here one
after the other, as Z-Image's (DECISIONS 38). The prompt, several layers of its encoder, is fused once a pass.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.models.architecture import Architecture, always
from imax_dist.models.base import PassInputs
from imax_dist.models.components import Configs, packed_spec
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import AttentionCall, attend
from imax_dist.models.networks.qwen_image import INSTRUCTION_TOKENS, TEMPLATE
from imax_dist.models.patches import joint_position_ids, pack, unpack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.models.token_shards import TokenShards
from imax_dist.models.video_vae import VideoVaeModel
from imax_dist.models.weights import pipeline_index
from imax_dist.shapes import Latents, Tokens


class GatedProcessor:
    """In the place of diffusers' Krea2AttnProcessor in the joint blocks; no state between calls."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: AttentionCall | None = None,
    ) -> Tensor:
        assert attention_mask is None, "text is cut to its length, never masked"
        assert image_rotary_emb is not None
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, attn.head_dim))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        output = attend((attn.norm_q(query), attn.norm_k(key), value), image_rotary_emb)
        return attn.to_out[0](output * torch.sigmoid(attn.to_gate(hidden_states)))  # type: ignore[no-any-return]


PREFIX, SUFFIX = TEMPLATE.split("{}")
"""Krea2Pipeline's own words around the prompt, which are Qwen-Image's."""
SUFFIX_TOKENS = 5
LAYERS = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)
"""Krea2Pipeline's default: the states of its encoder that are read."""


class Krea2Encoder(NamedTuple):
    """Qwen3-VL, and which of its states are read; 0 is its embedding."""

    encoder: TextEncoder
    layers: tuple[int, ...]


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Krea2Encoder:
    """Load tokenizer and encoder from a Krea 2 pipeline folder."""
    from transformers import Qwen3VLModel

    layers = pipeline_index(folder).get("text_encoder_select_layers") or LAYERS
    return Krea2Encoder(load_text_encoder(Qwen3VLModel, folder, device=device, dtype=dtype), tuple(layers))


@torch.no_grad()
def encode_text(encoder: Krea2Encoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, layers, D) of prompt and suffix, T at most ``tokens``.

    The pipeline pads between them and masks it, with positions that count real tokens: the same without.
    """
    reader, network = encoder.encoder.tokenizer, encoder.encoder.network
    length = tokens + INSTRUCTION_TOKENS - SUFFIX_TOKENS
    own = reader([PREFIX + prompt], truncation=True, max_length=length, return_tensors="pt").input_ids
    ids = torch.cat([own, reader([SUFFIX], return_tensors="pt").input_ids], dim=1).to(network.device)
    places = torch.arange(ids.shape[1], device=network.device).expand(3, 1, -1)
    states = network(
        input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=places, output_hidden_states=True
    ).hidden_states
    return torch.stack([states[layer] for layer in encoder.layers], dim=2)[:, INSTRUCTION_TOKENS:]


class Krea2Model(VideoVaeModel):
    """``encoders`` are a Krea2Encoder."""

    def prepare(self, transformer: Any) -> None:
        for block in transformer.transformer_blocks:
            block.attn.set_processor(GatedProcessor())

    def embed(self, text: str) -> Prompt:
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        network, sequence, states = self.transformer, inputs.sequence, prompt["states"]
        grid = self.token_grid(x)
        text = sequence.cache(("fused", id(states)), (states,), lambda: self._fused(states))
        table = inputs.tables(text.shape[1])
        shares = TokenShards.joint(sequence, text, image_tokens=grid.count)
        own_text = shares.copies(text)
        tokens = torch.cat([own_text, network.img_in(shares.image(pack(x), dim=1))], dim=1)
        call = AttentionCall.joint(shares, table)
        time = network.time_embed(self.per_image(sigma, x), dtype=x.dtype)
        modulation = network.time_mod_proj(F.gelu(time, approximate="tanh"))
        for block in network.transformer_blocks:
            tokens = block(tokens, modulation, call)
        made = network.final_layer(tokens[:, own_text.shape[1] :], time)
        return unpack(shares.gather(made, dim=1), grid)

    def _fused(self, states: Tensor) -> Tokens:
        """The prompt as the joint blocks take it; every rank computes the whole of it."""
        tokens: Tokens = self.transformer.txt_in(self.transformer.text_fusion(states.to(self.dtype)))
        return tokens


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer = configs.transformer
    layers = configs.pipeline.get("text_encoder_select_layers") or LAYERS
    if len(layers) != int(transformer["num_text_layers"]):
        raise BadConfig(
            f"model {name}: the pipeline reads {len(layers)} states of its text encoder, but the transformer "
            f"takes {transformer['num_text_layers']}"
        )
    spec = packed_spec(name, settings, configs, weights)
    return replace(spec, kv_heads=int(transformer["num_key_value_heads"]))


ARCHITECTURE = Architecture(
    facts=facts,
    model=Krea2Model,
    networks=("Krea2Transformer2DModel", "AutoencoderKLQwenImage"),
    load_text=load_encoder,
    settings=always("krea-2"),  # Turbo's: its base model has the same configuration
)
