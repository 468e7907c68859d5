"""What engines that want shards of one length need: padding, and local attention that skips it.

xfuser and diffusers exchange equal shards only. A shard is lengthened with zeros; the zeros are left out
where a block of keys is attended to, so that any length stays exact without a mask (DECISIONS 26).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from imax_dist.parallel.attention import PartialAttention
from imax_dist.parallel.kernels import Kernel
from imax_dist.parallel.key_parts import KeyPart, attend_parts, key_parts
from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.sequence import JointLayout
from imax_dist.shapes import Heads, KeyHeads


def padded(x: KeyHeads, rows: int) -> Tensor:
    """(B, S, H, D) with zeros behind, ``rows`` long."""
    return x if x.shape[1] == rows else F.pad(x, (0, 0, 0, 0, 0, rows - x.shape[1]))


class BlockAttention:
    """Attention of one call, a block of keys at a time, in the order of a library's own ring.

    ``step`` is +1 or -1: the next block is that of the next or the previous place of the ring. With
    ``layout.text_replicated`` the first block starts with the whole text, the others have none.
    """

    def __init__(
        self, mesh: SequenceMesh, layout: JointLayout, *, text_weight: int, step: int, kernel: Kernel | None
    ) -> None:
        self.rows = max(layout.image if layout.text_replicated else layout.joint)
        self.kernel = kernel
        self._blocks = self._parts(mesh, layout, text_weight, step)

    def __call__(self, query: Heads, key: KeyHeads, value: KeyHeads) -> PartialAttention:
        """The next block's attention, output in the queries' dtype."""
        part = attend_parts(query, key, value, next(self._blocks), kernel=self.kernel)
        return PartialAttention(part.output.to(query.dtype), part.log_sum_exp)

    def _parts(
        self, mesh: SequenceMesh, layout: JointLayout, text_weight: int, step: int
    ) -> Iterator[list[KeyPart]]:
        outside = layout.text_replicated
        for hop in range(mesh.ring):
            owners = mesh.ulysses_ranks((mesh.ring_index + step * hop) % mesh.ring)
            parts = key_parts(
                layout, owners, text_weight=1 if outside else text_weight,
                image_only=outside, padded_to=self.rows,
            )  # fmt: skip
            text = layout.text[mesh.rank]
            if outside and hop == 0 and text:
                own_text = KeyPart(((0, text),), text_weight)
                parts = [own_text, *(_moved(part, text) for part in parts)]
            yield parts


def repeated(x: KeyHeads, heads: int) -> Tensor:
    """Grouped keys as many as the queries, for a library that knows none."""
    return x if x.shape[2] == heads else x.repeat_interleave(heads // x.shape[2], dim=2)


def unpadded(x: Heads, rows: int) -> Tensor:
    """The first ``rows`` tokens."""
    return x if x.shape[1] == rows else x[:, :rows]


def _moved(part: KeyPart, rows: int) -> KeyPart:
    return KeyPart(tuple((start + rows, stop + rows) for start, stop in part.spans), part.weight)


def joined(text: Tensor, image: Tensor) -> Tensor:
    """Text tokens before image tokens."""
    return torch.cat([text, image], dim=1)
