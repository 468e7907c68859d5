"""FLUX as an Adapter: pack, split over the ranks, run the unmodified transformer, gather, unpack."""

from __future__ import annotations

from imax_dist.geometry import TokenGrid
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, Prompt
from imax_dist.models.base import TablesByText, TokenSequence
from imax_dist.models.flux.packing import pack, unpack
from imax_dist.models.flux.positions import ids_of, joint_position_ids
from imax_dist.models.flux.text import encode_text
from imax_dist.shapes import Latents, PositionIds


class FluxModel(Adapter):
    """See FlowModel; ``encoders`` are a TextEncoders."""

    def embed(self, text: str) -> Prompt:
        states, pooled = encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)
        return {"states": states, "pooled": pooled}

    def position_ids(self, grid: TokenGrid, copies: TextCopies, *, text_tokens: int) -> PositionIds:
        return joint_position_ids(grid, copies, text_tokens=text_tokens)

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
        grid, table, states, shares = self.joint_pass(x, prompt["states"], tables=tables, sequence=sequence)
        text_ids, image_ids = shares.once_a_table("ids", table, lambda: ids_of(shares.tables(table)))
        tokens = self.transformer(
            hidden_states=shares.image(pack(x), dim=1),
            timestep=self.per_image(sigma, x),
            guidance=None if scale is None else self.per_image(scale, x),
            encoder_hidden_states=states,
            pooled_projections=prompt["pooled"],
            txt_ids=text_ids,
            img_ids=image_ids,
            joint_attention_kwargs=shares.attention,
            return_dict=False,
        )[0]
        return unpack(shares.gather(tokens, dim=1), grid)
