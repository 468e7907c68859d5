"""Lumina-Next as an Adapter: a rank's patches as one row of an image, the caption whole on every rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, LatentScale, Prompt
from imax_dist.models.base import TablesByText, TokenSequence
from imax_dist.models.gemma import encode_caption
from imax_dist.models.guidance import first_channels
from imax_dist.models.lumina.positions import image_position_ids, interleaved
from imax_dist.models.patch_row import own_row, whole_image
from imax_dist.models.shares import Shares
from imax_dist.shapes import Latents, PositionIds, RopeTable

GUIDED_CHANNELS = 3
"""LuminaPipeline guides three of the four latent channels, "for exact reproducibility reasons"."""


class LuminaModel(Adapter):
    """See FlowModel; ``encoders`` are a Reader of Gemma."""

    combine = staticmethod(first_channels(GUIDED_CHANNELS))

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

    def predict(
        self,
        x: Latents,
        sigma: float,
        prompt: Prompt,
        *,
        tables: TablesByText,
        sequence: TokenSequence,
        scale: float | None,
    ) -> Latents:
        del scale  # there is no guidance input
        patch, channels = self.spec.patch, self.spec.latent_channels
        grid = self.token_grid(x)
        shares = Shares.of(sequence, text_tokens=0, image_tokens=grid.count)
        table = tables(0)
        rotary, norm = shares.once_a_table("rotary", table, lambda: _rotary(shares.tables(table)[1]))
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
