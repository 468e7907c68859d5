"""FLUX.3: diffusers' blocks, unmodified, in the order of its forward.

``Flux3Transformer2DModel.forward`` takes nothing that reaches its attention: its blocks are called here one
after the other (DECISIONS 38). Text passes blocks of its own at time 0, once a pass; image tokens pass theirs
alone, then both go through the joint blocks. Latents and batch norm are FLUX.2's. The distilled model is a
flow map: image and text are told the time that a step ends at, so that its text is made again in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import PassInputs
from imax_dist.models.components import Configs, packed_spec
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import AttentionCall, rotate_pairs
from imax_dist.models.networks import flux2
from imax_dist.models.patches import pack, unpack
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder
from imax_dist.models.token_shards import TokenSequence, TokenShards
from imax_dist.shapes import Latents, PositionIds, Tokens

ROW_SCALE = 0.5
"""Flux3PrepareLatentsStep.image_rope_scale: rows and columns count half."""


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """FLUX.2's, with half the rows and columns."""
    ids = flux2.joint_position_ids(grid, copies, text_tokens=text_tokens)
    return ids * ids.new_tensor([1.0, ROW_SCALE, ROW_SCALE, 1.0])


class CallProcessor:
    """In the place of diffusers' Flux3AttnProcessor: norm and rotation in float32 at least, one cast back."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: AttentionCall | None = None,
    ) -> Tensor:
        assert attention_mask is None, "FLUX.3 attends to its text's padding, as it was trained"
        assert image_rotary_emb is not None
        call = image_rotary_emb
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        precision = torch.promote_types(value.dtype, torch.float32)
        query, key = (
            rotate_pairs(norm(x.to(precision)), call.table).to(value.dtype)
            for norm, x in ((attn.norm_q, query), (attn.norm_k, key))
        )
        output = call.engine(query, key, value, layout=call.layout, text_weight=call.text_weight)
        return attn.to_out[1](attn.to_out[0](output.flatten(2, 3)))  # type: ignore[no-any-return]


LAYERS = (4, 8, 12, 16, 20, 24, 28, 32)
"""Flux3TextEncoderStep's default: the states of its encoder that are read; 0 is its embedding."""
WINDOW = 80
"""Flux3TextEncoderStep.pad_multiple: text is padded to a multiple of it, and the padding is attended to."""


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load tokenizer and encoder from a FLUX.3 pipeline folder."""
    from transformers import Qwen3VLForConditionalGeneration

    return load_text_encoder(Qwen3VLForConditionalGeneration, folder, device=device, dtype=dtype)


@torch.no_grad()
def encode_text(encoder: TextEncoder, prompt: str, *, tokens: int) -> Tensor:
    """States (1, T, layers x D): the prompt padded to the next multiple of 80, ``tokens`` at most."""
    reader, network = encoder
    text = reader.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    own = reader(text, truncation=True, max_length=tokens, return_tensors="pt").input_ids.shape[1]
    encoded = reader(
        text,
        truncation=True,
        padding="max_length",
        padding_side="right",
        max_length=min(-(-own // WINDOW) * WINDOW, tokens),
        return_tensors="pt",
    ).to(network.device)
    mask = encoded.attention_mask
    places = torch.arange(mask.shape[1], device=network.device)[None].masked_fill(mask == 0, 1)
    states = network(
        input_ids=encoded.input_ids,
        attention_mask=mask,
        position_ids=places,
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,  # no words are read from its head
    ).hidden_states
    return torch.cat([states[layer] for layer in LAYERS], dim=-1)


class OwnText(NamedTuple):
    """The prompt after the blocks of its own, whose time is 0."""

    states: Tokens
    modulation: Tensor
    """Of the joint blocks."""


class Flux3Model(flux2.Flux2Model):
    """``encoders`` are a TextEncoder of Qwen3-VL."""

    def prepare(self, transformer: Any) -> None:
        blocks = (transformer.txt_mode_blocks, transformer.mode_blocks["image"])
        for each in (*blocks, transformer.single_transformer_blocks):
            for block in each:
                block.attn.set_processor(CallProcessor())

    def embed(self, text: str) -> Prompt:
        tokens = self.spec.settings.text_tokens
        return {"states": encode_text(self.encoders, text, tokens=tokens)}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        network, sequence = self.transformer, inputs.sequence
        grid, end = self.token_grid(x), self._end(self.per_image(inputs.next_sigma, x))
        text = self._text(prompt["states"], end, sequence)
        table = inputs.tables(text.states.shape[1])
        shares = TokenShards.joint(sequence, text.states, image_tokens=grid.count)
        alone = AttentionCall.image_only(shares, table)
        time = self._time(self.per_image(sigma, x)) + end
        active = F.silu(time)
        image = network.x_embedders["image"](shares.image(pack(x), dim=1))
        early = network.early_stream_modulations["image"](active)
        for block in network.mode_blocks["image"]:
            image = block(image, early, alone)
        copies = shares.changing_copies if self._is_flow_map else shares.copies
        own_text = copies(text.states)
        joint = AttentionCall.joint(shares, table)
        modulation = network.single_stream_modulations["image"](active)
        for block in network.single_transformer_blocks:
            own_text, image = block(image, own_text, modulation, text.modulation, joint)
        made = network.proj_out(network.norm_out(image, time))
        return unpack(shares.gather(made, dim=1), grid)

    @property
    def _is_flow_map(self) -> bool:
        return self.transformer.target_timestep_embedder is not None

    def _time(self, sigma: Tensor) -> Tensor:
        """(B, 1, D) of a time (B,)."""
        network = self.transformer
        made: Tensor = network.timestep_embedder(network.time_proj(sigma * 1000).to(sigma.dtype))
        return made[:, None]

    def _end(self, sigma: Tensor) -> Tensor | float:
        """(B, 1, D) of the time (B,) that a step ends at, added to every other time; 0 but for a flow map."""
        if not self._is_flow_map:
            return 0.0
        network = self.transformer
        made: Tensor = network.target_timestep_embedder(network.time_proj(sigma * 1000).to(sigma.dtype))
        return made[:, None]

    def _text(self, states: Tensor, end: Tensor | float, sequence: TokenSequence) -> OwnText:
        """Every rank computes the whole of it: once a pass, or in every step of a flow map."""
        if self._is_flow_map:
            return self._own_text(states, end)
        return sequence.cache(("own text", id(states)), (states,), lambda: self._own_text(states, end))

    def _own_text(self, states: Tensor, end: Tensor | float) -> OwnText:
        network = self.transformer
        active = F.silu(self._time(states.new_zeros(states.shape[0], dtype=self.dtype)) + end)
        early = network.early_stream_modulations["txt"](active)
        text = network.context_embedder(states.to(self.dtype))
        ids = torch.zeros(text.shape[1], len(self.spec.axes), dtype=torch.float64)
        ids[:, 3] = torch.arange(text.shape[1])
        call = self.call_alone(self.trained_table(ids))
        for block in network.txt_mode_blocks:
            text = block(text, early, call)
        return OwnText(text, network.single_stream_modulations["txt"](active))


ROPE = {"axes_dims_rope": (32, 32, 32, 32), "rope_theta": 10000}
"""Flux3Transformer2DModel's own defaults, for configurations without the keys."""


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer = {**ROPE, **configs.transformer}
    spec = packed_spec(name, settings, configs._replace(transformer=transformer), weights)
    if transformer.get("flow_map"):
        spec = replace(spec, guidance="none")
    return flux2.with_four_axes(spec, "FLUX.3")


def settings_name(transformer: Mapping[str, Any]) -> str:
    """The distilled model's settings for a flow map, else those of its base."""
    return "flux3-klein" if transformer.get("flow_map") else "flux3-klein-base"


ARCHITECTURE = Architecture(
    facts=facts,
    model=Flux3Model,
    networks=("Flux3Transformer2DModel", "AutoencoderKLFlux2"),
    load_text=load_encoder,
    settings=settings_name,
)
