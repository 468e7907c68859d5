"""Z-Image as an Adapter: diffusers' blocks, unmodified, in the order of its forward.

``ZImageTransformer2DModel.forward`` itself pads each list it gets to multiples of 32 and takes nothing that
reaches the attention, so a shard could not pass through it; its blocks are called here one after the other
(DECISIONS 38). Time runs from 0, noise, to 1, and the network predicts image minus noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.rope import base_frequencies, rope_table
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.adapter import Adapter, Prompt
from imax_dist.models.base import TablesByText, TokenSequence
from imax_dist.models.shares import Shares
from imax_dist.models.z_image.packing import pack, padding, unpack
from imax_dist.models.z_image.positions import joint_position_ids, text_position_ids
from imax_dist.models.z_image.processor import AttentionCall
from imax_dist.models.z_image.text import encode_text
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Latents, PositionIds, RopeTable, Tokens


class ZImageModel(Adapter):
    """See FlowModel; ``encoders`` are a Reader."""

    def embed(self, text: str) -> Prompt:
        assert self.encoders is not None
        return {"states": encode_text(self.encoders, text, tokens=self.spec.settings.text_tokens)}

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
        del scale  # classifier-free: the scale is no input
        network = self.transformer
        grid = self.token_grid(x)
        time = self._time_embedding(sigma).to(x.dtype)
        states = prompt["states"]
        text = sequence.once(("refined", id(states)), (states,), lambda: self._refined_text(states))
        table = tables(text.shape[1])
        patches = network.all_x_embedder["2-1"](pack(x))
        image = _padded(patches, network.x_pad_token)
        shares = Shares.joint(sequence, text, image_tokens=image.shape[1])
        own_table = shares.tables(table)[1]
        alone = AttentionCall(own_table, sequence.engine, shares.layout.without_text())
        image = _through(network.noise_refiner, shares.image(image, dim=1), alone, time)
        own_text = shares.copies(text)
        joint = AttentionCall(
            shares.joint_table(table), sequence.engine, shares.layout, sequence.copies.weight
        )
        tokens = _through(network.layers, torch.cat([own_text, image], dim=1), joint, time)
        made = network.all_final_layer["2-1"](tokens[:, own_text.shape[1] :], c=time)
        return -unpack(shares.gather(made, dim=1)[:, : grid.count], grid)

    def _time_embedding(self, sigma: float) -> Tensor:
        precision = torch.promote_types(self.dtype, torch.float32)
        time = (1000.0 - 1000.0 * torch.full((1,), sigma, dtype=precision, device=self.device)) / 1000.0
        return self.transformer.t_embedder(time * self.transformer.t_scale)  # type: ignore[no-any-return]

    def _refined_text(self, states: Tokens) -> Tokens:
        """The prompt with its padding after the text-only blocks; every rank computes the whole of it."""
        text = self.transformer.cap_embedder(states)
        text = _padded(text, self.transformer.cap_pad_token)
        layout = JointLayout(text=(0,), image=(text.shape[1],))
        call = AttentionCall(self._trained_table(text.shape[1]), self.engine_alone(), layout)
        return _through(self.transformer.context_refiner, text, call)

    def _trained_table(self, text_tokens: int) -> RopeTable:
        """A prompt's own positions, which no size changes."""
        spec = self.spec
        frequencies = [base_frequencies(dim, spec.rope_theta) for dim in spec.rope_axes]
        table = rope_table(text_position_ids(text_tokens), frequencies)
        precision = torch.promote_types(self.dtype, torch.float32)
        return RopeTable(*(part.to(self.device, precision) for part in table))


def _through(blocks: Any, tokens: Tokens, call: AttentionCall, *time: Tensor) -> Tokens:
    for block in blocks:
        tokens = block(tokens, None, call, *time)
    return tokens


def _padded(tokens: Tokens, pad: Tensor) -> Tokens:
    """(B, T, D) -> (B, T + padding, D) with the learned token ``pad``, (1, D)."""
    pads = pad.expand(tokens.shape[0], padding(tokens.shape[1]), -1)
    return torch.cat([tokens, pads], dim=1)
