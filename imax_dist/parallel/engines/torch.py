"""Ring x Ulysses on torch.distributed alone: the same code on gloo and NCCL, exact for any length."""

from __future__ import annotations

import torch

from imax_dist.parallel.attention import (
    PartialAttention,
    attend,
    attend_partially,
    merge,
    weighted,
)
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.ring import rotate
from imax_dist.parallel.sequence import JointLayout
from imax_dist.parallel.ulysses import all_heads, divisible_heads, gather_heads, own_heads, scatter_qkv
from imax_dist.shapes import Heads, KeyHeads


class TorchEngine:
    """See AttentionEngine; ``mesh`` of one rank is plain attention."""

    def __init__(self, mesh: SequenceMesh) -> None:
        self.mesh = mesh

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        compute = self._with_sharded_text
        if layout.text_replicated and self.mesh.size > 1:
            compute = self._with_replicated_text
        key, value = divisible_heads(key, self.mesh), divisible_heads(value, self.mesh)
        return compute(query, key, value, layout=layout, text_weight=text_weight)

    def _with_sharded_text(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int
    ) -> Heads:
        mesh = self.mesh
        lengths = [layout.joint[rank] for rank in mesh.ulysses_ranks(mesh.ring_index)]
        q, k, v = scatter_qkv((query, key, value), lengths, mesh)
        if mesh.ring == 1 and text_weight == 1:
            return gather_heads(attend(q, k, v), lengths, mesh)
        merged: PartialAttention | None = None
        for owner, block_k, block_v in rotate(k, v, _block_lengths(layout.joint, mesh), mesh):
            for rows, weight in self._parts(layout, owner, text_weight):
                part = attend_partially(q, block_k[:, rows], block_v[:, rows])
                merged = merge(merged, weighted(part, weight))
        assert merged is not None
        return gather_heads(merged.output.to(query.dtype), lengths, mesh)

    def _parts(
        self, layout: JointLayout, owner: int, text_weight: int
    ) -> list[tuple[slice | torch.Tensor, int]]:
        """The rows of a block and how often each counts; text and image apart only if they differ."""
        if text_weight == 1:
            return [(slice(None), 1)]
        is_text = torch.cat(
            [torch.arange(layout.joint[rank]) < layout.text[rank] for rank in self.mesh.ulysses_ranks(owner)]
        )
        parts = [(is_text.nonzero().flatten(), text_weight), ((~is_text).nonzero().flatten(), 1)]
        return [(rows, weight) for rows, weight in parts if len(rows)]

    def _with_replicated_text(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int
    ) -> Heads:
        """Text keys never travel: every rank has them and merges them once."""
        mesh, text = self.mesh, layout.text[self.mesh.rank]
        lengths = [layout.image[rank] for rank in mesh.ulysses_ranks(mesh.ring_index)]
        qkv = (query, key, value)
        text_q, text_k, text_v = (own_heads(x[:, :text], mesh) for x in qkv)
        image_q, k, v = scatter_qkv((query[:, text:], key[:, text:], value[:, text:]), lengths, mesh)
        q = torch.cat([text_q, image_q], dim=1)
        merged: PartialAttention | None = None
        if text:
            merged = merge(None, weighted(attend_partially(q, text_k, text_v), text_weight))
        for _, block_k, block_v in rotate(k, v, _block_lengths(layout.image, mesh), mesh):
            merged = merge(merged, attend_partially(q, block_k, block_v))
        assert merged is not None
        output = merged.output.to(query.dtype)
        image_output = gather_heads(output[:, text:], lengths, mesh)
        return torch.cat([all_heads(output[:, :text], mesh), image_output], dim=1)


def _block_lengths(lengths: tuple[int, ...], mesh: SequenceMesh) -> list[int]:
    """Tokens at each place of the ring: the sum over its Ulysses ranks."""
    return [sum(lengths[rank] for rank in mesh.ulysses_ranks(i)) for i in range(mesh.ring)]
