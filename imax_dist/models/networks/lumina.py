"""Lumina-Next: a rank's patches as one row of an image, the caption whole on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models import patches
from imax_dist.models.architecture import Architecture
from imax_dist.models.base import FlowModel, LatentScale, PassInputs
from imax_dist.models.components import Configs, check_patches, vae_factor
from imax_dist.models.conditioning import Prompt
from imax_dist.models.guidance import first_channels
from imax_dist.models.joint_attention import rotate_pairs
from imax_dist.models.patches import own_row, whole_image
from imax_dist.models.spec import ModelSettings, ModelSpec
from imax_dist.models.text_encoder import encode_caption, load_gemma
from imax_dist.models.token_shards import TokenShards
from imax_dist.parallel.engines import AttentionEngine
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Latents, PositionIds, RopeTable


def image_position_ids(grid: TokenGrid) -> PositionIds:
    """(row, column) of every token, row by row."""
    return patches.image_position_ids(grid)[:, 1:]


def interleaved(table: RopeTable) -> RopeTable:
    """Our table (rows' pairs, then columns') in Lumina-Next's order: a row's pair, a column's pair, ..."""
    return RopeTable(*(_alternate(part) for part in table))


def _alternate(part: Tensor) -> Tensor:
    pairs: Tensor = part.unflatten(1, (2, -1, 2))
    return pairs.transpose(1, 2).flatten(1)


class LuminaProcessor:
    """In the place of diffusers' LuminaAttnProcessor2_0; stateless."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        query_rotary_emb: Tensor | None = None,
        key_rotary_emb: Tensor | None = None,
        engine: AttentionEngine | None = None,
        layout: JointLayout | None = None,
        table_norm: float = 1.0,
    ) -> Tensor:
        assert engine is not None
        assert layout is not None
        assert query_rotary_emb is not None
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(-1, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(-1, (-1, query.shape[-1]))
        value = attn.to_v(encoder_hidden_states).unflatten(-1, (-1, query.shape[-1]))
        table = RopeTable(*query_rotary_emb[0].chunk(2, dim=-1))
        query = rotate_pairs(query, table)
        if key_rotary_emb is not None:
            return engine(query, rotate_pairs(key, table), value, layout=layout)
        return _to_caption(query / table_norm, key, value, attention_mask)


def _to_caption(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    shown = None if mask is None else mask.bool()[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=shown, enable_gqa=True).transpose(1, 2)


GUIDED_CHANNELS = 3
"""LuminaPipeline guides three of the four latent channels, "for exact reproducibility reasons"."""


class LuminaModel(FlowModel):
    """``encoders`` are a TextEncoder of Gemma."""

    combine = staticmethod(first_channels(GUIDED_CHANNELS))

    def prepare(self, transformer: Any) -> None:
        for module in transformer.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(LuminaProcessor())

    def embed(self, text: str) -> Prompt:
        caption = text.lower().strip()  # as LuminaPipeline does
        tokens = self.spec.settings.text_tokens
        states = encode_caption(self.encoders, caption, tokens=tokens, padding=True, pad_to_multiple_of=8)
        return {"states": states, "mask": torch.ones(states.shape[:2], device=states.device)}

    def batch(self, prompts: Sequence[Prompt]) -> Prompt:
        """The shorter captions are padded; their mask hides it."""
        longest = max(prompt["states"].shape[1] for prompt in prompts)
        rows = [(prompt, longest - prompt["states"].shape[1]) for prompt in prompts]
        return {
            "states": torch.cat([F.pad(prompt["states"], (0, 0, 0, missing)) for prompt, missing in rows]),
            "mask": torch.cat([F.pad(prompt["mask"], (0, missing)) for prompt, missing in rows]),
        }

    def position_ids(self, grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
        del copies, text_tokens  # the caption is not in the sequence
        return image_position_ids(grid)

    def predict(self, x: Latents, sigma: float, prompt: Prompt, inputs: PassInputs) -> Latents:
        patch, channels = self.spec.patch, self.spec.latent_channels
        grid, sequence = self.token_grid(x), inputs.sequence
        shares = TokenShards.of(sequence, text_tokens=0, image_tokens=grid.count)
        table = inputs.tables(0)
        rotary, norm = shares.cached_by_table("rotary", table, lambda: _rotary(shares.tables(table)[1]))
        row = self.transformer(
            hidden_states=own_row(x, shares, patch=patch),
            timestep=self.per_image(1.0 - sigma, x),  # Lumina's time runs from noise to image
            encoder_hidden_states=prompt["states"],
            encoder_mask=prompt["mask"],
            image_rotary_emb=rotary,
            cross_attention_kwargs={
                "engine": sequence.engine,
                "layout": shares.layout,
                "table_norm": norm,
            },
            return_dict=False,
        )[0][:, :channels]  # learn_sigma doubles the output; the second half is not used
        return -whole_image(row, grid, shares, patch=patch)

    def latent_scale(self) -> LatentScale:
        """LuminaPipeline leaves the VAE's shift out."""
        return LatentScale(0.0, self.vae.config.scaling_factor)


def _rotary(image: RopeTable) -> tuple[Tensor, float]:
    """The table as the transformer takes it, (1, own tokens, 2 head_dim), and the factor in it."""
    table = interleaved(image)
    return torch.cat(table, dim=-1)[None], float(torch.hypot(table.cos[0, 0], table.sin[0, 0]))


ROPE_THETA = 10_000.0
"""LuminaPipeline's own; no configuration key holds it."""
NATIVE_2K = 256
"""``sample_size`` from which a bare folder takes the settings of the 2K model."""


def facts(name: str, settings: ModelSettings, configs: Configs, weights: str) -> ModelSpec:
    """As the config files tell them. Raises BadConfig if they do not fit."""
    transformer, vae = configs.transformer, configs.vae
    heads = int(transformer["num_attention_heads"])
    head_dim = int(transformer["hidden_size"]) // heads
    spec = ModelSpec(
        name=name,
        settings=settings,
        weights=weights,
        heads=heads,
        kv_heads=transformer.get("num_kv_heads"),
        head_dim=head_dim,
        rope_axes=(head_dim // 2, head_dim // 2),
        axes=("row", "column"),
        rope_theta=ROPE_THETA,
        latent_channels=int(transformer["in_channels"]),
        vae_factor=vae_factor(vae),
        patch=int(transformer["patch_size"]),
        guidance="classifier_free",
        text_attention="cross",
    )
    check_patches(
        spec,
        channels=spec.latent_channels,
        vae_channels=int(vae["latent_channels"]),
        patches=[spec.patch],
    )
    return spec


def settings_name(transformer: Mapping[str, Any]) -> str:
    """The 2K model's settings for a transformer of 2048 px, else those of 1024 px."""
    return "lumina-next-2k" if int(transformer.get("sample_size", 128)) >= NATIVE_2K else "lumina-next"


ARCHITECTURE = Architecture(
    facts=facts,
    model=LuminaModel,
    networks=("LuminaNextDiT2DModel", "AutoencoderKL"),
    load_text=load_gemma,
    settings=settings_name,
)
