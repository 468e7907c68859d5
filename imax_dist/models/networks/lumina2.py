"""Lumina-Image-2.0: a rank's patches as one row of an image, its share of caption in front."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies, text_position_ids
from imax_dist.models.architecture import Architecture, always
from imax_dist.models.base import FlowModel, PassInputs
from imax_dist.models.components import Configs, check_patches, vae_factor
from imax_dist.models.conditioning import Prompt
from imax_dist.models.guidance import norm_preserving
from imax_dist.models.joint_attention import AttentionCall, attend
from imax_dist.models.patches import image_position_ids, own_row, whole_image
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import encode_caption, load_gemma
from imax_dist.models.token_shards import TokenShards
from imax_dist.shapes import Latents, PositionIds, RopeTable, Tokens


def joint_position_ids(grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
    """Text copies first, each at its own row and column, then the image."""
    text = text_position_ids(text_tokens, copies)
    text[:, 0] = torch.arange(text_tokens, dtype=text.dtype).repeat(copies.literal)
    image = image_position_ids(grid)
    image[:, 0] = text_tokens
    return torch.cat([text, image])


class Sequences(NamedTuple):
    """Goes in as ``encoder_attention_mask``: the three sequences the transformer computes with."""

    caption: AttentionCall
    image: AttentionCall
    joint: AttentionCall
    own_text: int
    """Caption tokens that this rank adds to the joint sequence: the first of those it refines."""


class TokensAsGiven(nn.Module):
    """Stands in for Lumina2RotaryPosEmbed: no tables of its own, so no longest side."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, hidden_states: Tensor, sequences: Sequences) -> tuple[Any, ...]:
        batch = hidden_states.shape[0]
        cut = hidden_states.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        tokens = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        text = sequences.own_text
        lengths = [text] * batch, [text + tokens.shape[1]] * batch
        return tokens, sequences.caption, sequences.image, sequences.joint, *lengths


class Lumina2Processor:
    """In the place of diffusers' Lumina2AttnProcessor2_0."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Any = None,
        image_rotary_emb: AttentionCall | None = None,
    ) -> Tensor:
        del attention_mask  # captions come without padding
        assert image_rotary_emb is not None
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        key, value = (
            project(encoder_hidden_states).unflatten(-1, (-1, query.shape[-1]))
            for project in (attn.to_k, attn.to_v)
        )
        output = attend((attn.norm_q(query), attn.norm_k(key), value), image_rotary_emb)
        return attn.to_out[1](attn.to_out[0](output))  # type: ignore[no-any-return]


SYSTEM_PROMPT = (
    "You are an assistant designed to generate superior images with the superior degree of image-text "
    "alignment based on textual prompts or user prompts."
)
"""Lumina2Pipeline's own."""


class Caption(NamedTuple):
    """The caption's tokens as this rank refines them: all copies, its own share of them first."""

    states: Tokens
    table: RopeTable


class Lumina2Model(FlowModel):
    """``encoders`` are a TextEncoder of Gemma (2)."""

    combine = staticmethod(norm_preserving(3))  # Lumina2Pipeline's cfg_normalization: along each row

    def prepare(self, transformer: Any) -> None:
        transformer.rope_embedder = TokensAsGiven(self.spec.patch)
        for module in transformer.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(Lumina2Processor())

    def embed(self, text: str) -> Prompt:
        """The system prompt goes before every prompt but the empty one, as in Lumina2Pipeline."""
        caption = f"{SYSTEM_PROMPT} <Prompt Start> {text}" if text else ""
        tokens = self.spec.settings.text_tokens
        states = encode_caption(
            self.encoders, caption, tokens=tokens, padding="max_length", padding_side="right"
        )
        return {"states": states}

    position_ids = staticmethod(joint_position_ids)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        patch, states, sequence = self.spec.patch, prompt["states"], inputs.sequence
        grid = self.token_grid(x)
        table = inputs.tables(states.shape[1])
        shares = TokenShards.joint(sequence, states, image_tokens=grid.count)
        caption = sequence.cache(
            ("caption", grid, id(states)), (states, table), lambda: self._caption(states, table, shares)
        )
        row = self.transformer(
            hidden_states=own_row(x, shares, patch=patch),
            timestep=self.per_image(1.0 - sigma, x),  # Lumina's time runs from noise to image
            encoder_hidden_states=caption.states,
            encoder_attention_mask=self._sequences(caption, table, shares),
            return_dict=False,
        )[0]
        return -whole_image(row, grid, shares, patch=patch)

    def _caption(self, states: Tokens, table: RopeTable, shares: TokenShards) -> Caption:
        """Every rank refines the whole caption, which is short; the copies are those of one refined caption.

        Its length is as trained, so the table's attention factor is taken out again.
        """
        tokens, copies = states.shape[1], shares.sequence.copies.literal
        norm = torch.hypot(table.cos[0, 0], table.sin[0, 0])
        start = 0 if shares.layout.text_replicated else sum(shares.layout.text[: shares.sequence.mesh.rank])
        own = RopeTable(*((part[:tokens] / norm).repeat(copies, 1).roll(-start, 0) for part in table))
        return Caption(states.repeat(1, copies, 1).roll(-start, 1), own)

    def _sequences(self, caption: Caption, table: RopeTable, shares: TokenShards) -> Sequences:
        return Sequences(
            caption=self.call_alone(caption.table),
            image=AttentionCall.image_only(shares, table),
            joint=AttentionCall.joint(shares, table),
            own_text=shares.layout.text[shares.sequence.mesh.rank],
        )


ROPE_THETA = 10_000.0
"""Fixed in Lumina2Transformer2DModel; no configuration key holds it."""


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer, vae = configs.transformer, configs.vae
    heads = int(transformer["num_attention_heads"])
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=heads,
        kv_heads=transformer.get("num_kv_heads"),
        head_dim=int(transformer["hidden_size"]) // heads,
        rope_axes=tuple(int(axis) for axis in transformer["axes_dim_rope"]),
        rope_theta=ROPE_THETA,
        latent_channels=int(transformer["in_channels"]),
        vae_factor=vae_factor(vae),
        patch=int(transformer["patch_size"]),
        guidance="classifier_free",
    )
    check_patches(
        spec,
        channels=spec.latent_channels,
        vae_channels=int(vae["latent_channels"]),
        patches=[spec.patch],
    )
    return spec


ARCHITECTURE = Architecture(
    facts=facts,
    model=Lumina2Model,
    networks=("Lumina2Transformer2DModel", "AutoencoderKL"),
    load_text=load_gemma,
    settings=always("lumina-image-2"),
)
