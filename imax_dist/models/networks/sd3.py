"""Stable Diffusion 3: embed, split over the ranks, run the unmodified transformer, gather."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import FlowModel, PassInputs
from imax_dist.models.components import Configs, check_patches, vae_factor
from imax_dist.models.conditioning import Prompt
from imax_dist.models.joint_attention import AttentionCall, JointProcessor, attend, image_heads
from imax_dist.models.patches import unpack_channels_last
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import TextEncoder, load_text_encoder, padded_ids
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Latents, PositionIds, RopeTable, Tokens


class TokensAsRow(nn.Module):
    """Stands in for PatchEmbed: (B, D / 4, 2, 2 T) -> (B, T, D), the inverse of ``as_row``."""

    def forward(self, row: Tensor) -> Tokens:
        tokens: Tensor = row.unflatten(3, (-1, 2)).permute(0, 3, 1, 2, 4).flatten(2)
        return tokens


def as_row(tokens: Tokens) -> Latents:
    """(B, T, D) -> (B, D / 4, 2, 2 T): a row of 2 x 2 patches, each one token."""
    row: Tensor = tokens.unflatten(2, (-1, 2, 2)).permute(0, 2, 3, 1, 4).flatten(3)
    return row


def patches_of(row: Latents) -> Tokens:
    """(B, C, 2, 2 T) as the transformer returns it -> (B, T, 4 C), channels last within a patch."""
    patches: Tensor = row.unflatten(3, (-1, 2)).permute(0, 3, 2, 4, 1).flatten(2)
    return patches


def image_of(patches: Tokens, grid: TokenGrid) -> Latents:
    """All patches -> (B, C, H, W)."""
    return unpack_channels_last(patches, grid)


class ImageProcessor:
    """In the place of diffusers' JointAttnProcessor2_0 where it gets no text; no state between calls."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        text_weight: int = 1,
    ) -> Tensor:
        del text_weight  # no text here
        assert encoder_hidden_states is None
        assert attention_mask is None
        assert engine is not None
        assert layout is not None
        assert image_rotary_emb is not None
        own = hidden_states.shape[1]
        table = RopeTable(*(part[part.shape[0] - own :] for part in image_rotary_emb))
        heads = image_heads(attn, hidden_states)
        output = attend(heads, AttentionCall(table, engine, layout.without_text()))
        result: torch.Tensor = attn.to_out[1](attn.to_out[0](output))
        return result


class TextEncoders(NamedTuple):
    """CLIP-L, CLIP-G and T5."""

    clips: tuple[TextEncoder, TextEncoder]
    t5: TextEncoder


def load_text_encoders(folder: Path, *, device: torch.device, dtype: torch.dtype) -> TextEncoders:
    """Load all three encoders from a Stable Diffusion 3 pipeline folder."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    load = partial(load_text_encoder, folder=folder, device=device, dtype=dtype)
    load_clip = partial(load, CLIPTextModelWithProjection, tokenizer=CLIPTokenizer)
    t5 = load(T5EncoderModel, tokenizer=T5TokenizerFast, number="_3")
    return TextEncoders((load_clip(), load_clip(number="_2")), t5)


@torch.no_grad()
def encode_text(encoders: TextEncoders, prompt: str, *, tokens: int) -> tuple[Tensor, Tensor]:
    """States (1, CLIP's tokens + ``tokens``, D) and pooled vector (1, D'); both texts padded or cut."""
    clips, t5 = encoders
    length = clips[0].tokenizer.model_max_length
    read = [
        clip.network(padded_ids(clip, prompt, length=length), output_hidden_states=True) for clip in clips
    ]
    t5_states = t5.network(padded_ids(t5, prompt, length=tokens)).last_hidden_state
    clip_states = torch.cat([one.hidden_states[-2] for one in read], dim=-1)
    widened = F.pad(clip_states, (0, t5_states.shape[-1] - clip_states.shape[-1]))
    pooled = torch.cat([one.text_embeds for one in read], dim=-1)
    return torch.cat([widened, t5_states], dim=1), pooled


class SD3Model(FlowModel):
    """``encoders`` are a TextEncoders, ``embedder`` the transformer's own patch embedding."""

    embedder: Any

    def prepare(self, transformer: Any) -> None:
        self.embedder, transformer.pos_embed = transformer.pos_embed, TokensAsRow()
        for block in transformer.transformer_blocks:
            block.attn.set_processor(JointProcessor())
            if block.attn2 is not None:
                block.attn2.set_processor(ImageProcessor())

    def embed(self, text: str) -> Prompt:
        states, pooled = encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)
        return {"states": states, "pooled": pooled}

    def position_ids(self, grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
        """Zeros: the table turns nothing, and only carries the proportional attention's factor."""
        return torch.zeros(copies.literal * text_tokens + grid.count, 1, dtype=torch.float64)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        grid, table, states, shares = self.joint_pass(x, prompt["states"], inputs)
        precision = torch.promote_types(self.dtype, torch.float32)
        row = self.transformer(
            hidden_states=as_row(shares.image(self.embedder(x), dim=1)),
            timestep=torch.full((x.shape[0],), 1000.0 * sigma, dtype=precision, device=self.device),
            encoder_hidden_states=states,
            pooled_projections=prompt["pooled"],
            joint_attention_kwargs={
                "image_rotary_emb": shares.joint_table(table),
                **shares.attention,
            },
            return_dict=False,
        )[0]
        return image_of(shares.gather(patches_of(row), dim=1), grid)


PATCH = 2
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
HEADS_OF_LARGE = 38


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer, vae = configs.transformer, configs.vae
    head_dim = int(transformer["attention_head_dim"])
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=int(transformer["num_attention_heads"]),
        head_dim=head_dim,
        rope_axes=(head_dim,),
        rope_theta=1.0,
        latent_channels=int(vae["latent_channels"]),
        vae_factor=vae_factor(vae),
        patch=PATCH,
        guidance="classifier_free",
        axes=("fixed",),
        positions="absolute",
        largest_side=int(transformer["pos_embed_max_size"]),
    )
    check_patches(
        spec,
        channels=int(transformer["in_channels"]),
        vae_channels=spec.latent_channels,
        patches=[transformer["patch_size"]],
    )
    return spec


def settings_name(transformer: Mapping[str, Any]) -> str:
    """SD3.5 Large's settings for a network of its width, else those of Medium."""
    return "sd3.5-large" if transformer.get("num_attention_heads") == HEADS_OF_LARGE else "sd3.5-medium"


ARCHITECTURE = Architecture(
    facts=facts,
    model=SD3Model,
    networks=("SD3Transformer2DModel", "AutoencoderKL"),
    load_text=load_text_encoders,
    settings=settings_name,
    encoders=ENCODERS,
    tokenizers=TOKENIZERS,
)
