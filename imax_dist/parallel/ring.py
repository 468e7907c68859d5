"""Ring: keys and values travel round the ranks while each rank's queries stay.

Ring attention, arXiv 2310.01889, without causal mask. A hop is posted before the block in hand is
computed, so that it travels meanwhile. Blocks may have different lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from imax_dist.parallel.mesh import SequenceMesh
from imax_dist.parallel.point_to_point import Posted, post
from imax_dist.shapes import KeyHeads


def rotate(
    key: KeyHeads, value: KeyHeads, lengths: Sequence[int], mesh: SequenceMesh
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (ring index of the owner, key, value) for every block of the ring, the own one first.

    ``lengths`` are the token counts of the blocks by ring index.
    """
    block = torch.stack([key, value]) if mesh.ring > 1 else None
    for hop in range(mesh.ring):
        owner = (mesh.ring_index - hop) % mesh.ring
        if block is None:
            yield owner, key, value
            return
        coming: Tensor | None = None
        pending: Posted | None = None
        if hop + 1 < mesh.ring:
            length = lengths[(owner - 1) % mesh.ring]
            coming = block.new_empty((2, block.shape[1], length, *block.shape[3:]))
            pending = _exchange(block, coming, mesh)
        yield owner, block[0], block[1]
        if pending is not None:
            with mesh.marks.waiting("a ring hop"):
                pending.wait()
        block = coming if coming is not None else block


def _exchange(block: Tensor, coming: Tensor, mesh: SequenceMesh) -> Posted:
    """Post the send to the next place of the ring and the receive from the one before."""
    following = mesh.first + (mesh.rank + mesh.ulysses) % mesh.size
    preceding = mesh.first + (mesh.rank - mesh.ulysses) % mesh.size
    return post([(block, following)], [(coming, preceding)], mesh.ring_group)
