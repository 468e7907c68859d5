"""Ring x Ulysses on torch.distributed alone: the same code on gloo and NCCL, exact for any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from imax_dist.parallel.attention import PartialAttention, attend
from imax_dist.parallel.kernels import Kernel
from imax_dist.parallel.key_parts import KeyPart, attend_parts, block_lengths, key_parts
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.ring import rotate
from imax_dist.parallel.sequence import JointLayout
from imax_dist.parallel.ulysses import all_heads, divisible_heads, gather_heads, own_heads, send_qkv
from imax_dist.shapes import Heads, KeyHeads


class TorchEngine:
    """See AttentionEngine; ``mesh`` of one rank is plain attention. ``kernel`` None: torch's own choice."""

    def __init__(self, mesh: SequenceMesh, *, kernel: Kernel | None = None) -> None:
        self.mesh = mesh
        self.kernel = kernel

    def __call__(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Heads:
        return self.begin(query, key, value, layout=layout, text_weight=text_weight)()

    def begin(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int = 1
    ) -> Callable[[], Heads]:
        """See ``begun``: with the text sharded, the exchange of heads is under way meanwhile."""
        key, value = divisible_heads(key, self.mesh), divisible_heads(value, self.mesh)
        if layout.text_replicated and self.mesh.size > 1:
            return lambda: self._with_replicated_text(
                query, key, value, layout=layout, text_weight=text_weight
            )
        lengths = [layout.joint[rank] for rank in self.mesh.ulysses_ranks(self.mesh.ring_index)]
        coming = send_qkv((query, key, value), lengths, self.mesh)
        return lambda: self._with_sharded_text(coming.wait(), lengths, layout=layout, text_weight=text_weight)

    def _with_sharded_text(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        lengths: Sequence[int],
        *,
        layout: JointLayout,
        text_weight: int,
    ) -> Heads:
        mesh, (q, k, v) = self.mesh, qkv
        if mesh.ring == 1 and text_weight == 1:
            return gather_heads(attend(q, k, v, kernel=self.kernel), lengths, mesh)
        merged: PartialAttention | None = None
        for owner, block_k, block_v in rotate(k, v, block_lengths(layout.joint, mesh), mesh):
            parts = key_parts(layout, mesh.ulysses_ranks(owner), text_weight=text_weight)
            merged = attend_parts(q, block_k, block_v, parts, merged=merged, kernel=self.kernel)
        assert merged is not None
        return gather_heads(merged.output.to(q.dtype), lengths, mesh)

    def _with_replicated_text(
        self, query: Heads, key: KeyHeads, value: KeyHeads, *, layout: JointLayout, text_weight: int
    ) -> Heads:
        """Text keys never travel: every rank has them and merges them once."""
        mesh, text = self.mesh, layout.text[self.mesh.rank]
        lengths = [layout.image[rank] for rank in mesh.ulysses_ranks(mesh.ring_index)]
        qkv = (query, key, value)
        text_q, text_k, text_v = (own_heads(x[:, :text], mesh) for x in qkv)
        image_q, k, v = send_qkv((query[:, text:], key[:, text:], value[:, text:]), lengths, mesh).wait()
        q = torch.cat([text_q, image_q], dim=1)
        merged: PartialAttention | None = None
        if text:
            own_text = [KeyPart(((0, text),), text_weight)]
            merged = attend_parts(q, text_k, text_v, own_text, kernel=self.kernel)
        for owner, block_k, block_v in rotate(k, v, block_lengths(layout.image, mesh), mesh):
            parts = key_parts(layout, mesh.ulysses_ranks(owner), image_only=True)
            merged = attend_parts(q, block_k, block_v, parts, merged=merged, kernel=self.kernel)
        assert merged is not None
        output = merged.output.to(query.dtype)
        image_output = gather_heads(output[:, text:], lengths, mesh)
        return torch.cat([all_heads(output[:, :text], mesh), image_output], dim=1)
