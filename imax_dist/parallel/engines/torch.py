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
from imax_dist.parallel.ulysses import (
    Arriving,
    Here,
    Piece,
    all_heads,
    divisible_heads,
    gather_heads,
    joined_heads,
    own_heads,
    send_output,
    send_qkv,
)
from imax_dist.shapes import Heads, KeyHeads

MOST_PIECES = 4
"""Of a rank's heads: each more hides less and costs the host two calls a block."""
LEAST_TOKENS = 32768
"""Of the whole sequence, from which one head's attention lasts longer (1 ms on an H100) than the calls."""


def head_pieces(keys: int, tokens: int) -> int:
    """Pieces in which a GPU exchanges a rank's ``keys`` key heads, with their queries (DECISIONS 111)."""
    return min(MOST_PIECES, keys) if tokens >= LEAST_TOKENS else 1


class TorchEngine:
    """See AttentionEngine; ``mesh`` of one rank is plain attention. ``kernel`` None: torch's own choice."""

    def __init__(
        self, mesh: SequenceMesh, *, kernel: Kernel | None = None, pieces: int | None = None
    ) -> None:
        self.mesh = mesh
        self.kernel = kernel
        self.pieces = pieces
        """Of a rank's heads, exchanged in turn; None: as many as pay, without a ring."""

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
        count = self._pieces(key, sum(lengths))
        coming = [
            send_qkv((query, key, value), lengths, self.mesh, Piece(number, count)) for number in range(count)
        ]
        return lambda: self._in_turn(coming, lengths, layout=layout, text_weight=text_weight)

    def _pieces(self, key: KeyHeads, tokens: int) -> int:
        """Unasked one: on a CPU the cores that would compute copy the bytes, and a ring has hops for each."""
        keys = key.shape[2] // self.mesh.ulysses
        if self.mesh.ulysses == 1:
            return 1
        if self.pieces is None:
            return head_pieces(keys, tokens) if key.is_cuda and self.mesh.ring == 1 else 1
        return min(self.pieces, keys)

    def _in_turn(
        self,
        coming: Sequence[Arriving | Here],
        lengths: Sequence[int],
        *,
        layout: JointLayout,
        text_weight: int,
    ) -> Heads:
        """Attention of one piece of the heads while the next arrives and the one before returns."""
        returning = []
        for each in coming:
            output = self._with_sharded_text(each.wait(), layout=layout, text_weight=text_weight)
            if self.mesh.ulysses == 1:
                return output
            returning.append(send_output(output, lengths, self.mesh))
        return joined_heads(returning)

    def _with_sharded_text(
        self, qkv: tuple[Tensor, Tensor, Tensor], *, layout: JointLayout, text_weight: int
    ) -> Heads:
        mesh, (q, k, v) = self.mesh, qkv
        if mesh.ring == 1 and text_weight == 1:
            return attend(q, k, v, kernel=self.kernel)
        merged: PartialAttention | None = None
        for owner, block_k, block_v in rotate(k, v, block_lengths(layout.joint, mesh), mesh):
            parts = key_parts(layout, mesh.ulysses_ranks(owner), text_weight=text_weight)
            merged = attend_parts(q, block_k, block_v, parts, merged=merged, kernel=self.kernel)
        assert merged is not None
        return merged.output.to(q.dtype)

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
