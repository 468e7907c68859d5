"""Two halves of the ranks, each a sequence mesh of its own: one computes with the prompt, one without."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from imax_dist.errors import BadConfig
from imax_dist.parallel.collectives import all_gather_single
from imax_dist.parallel.mesh import SequenceMesh, build_mesh, own_group
from imax_dist.parallel.topology import Topology


@dataclass(frozen=True)
class CfgParallel:
    """This rank's half (0 or 1), its mesh, and the pair it makes with the same place of the other half."""

    index: int
    mesh: SequenceMesh
    pair: dist.ProcessGroup | None

    def gather_both(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """What the first and the second half computed, the same bits on every rank."""
        piece = own.contiguous()
        pieces = piece.new_empty((2 * piece.shape[0], *piece.shape[1:]))
        with self.mesh.marks.waiting("the exchange of both predictions"):
            all_gather_single(pieces, piece, self.pair)
        first, second = pieces.chunk(2)
        return first, second


def ranks_per_half(world_size: int) -> int:
    """Ranks of one half. Raises BadConfig unless there are two equal ones."""
    if world_size < 2 or world_size % 2:
        were = "was" if world_size == 1 else "were"
        raise BadConfig(
            f"parallel: cfg split gives half of the ranks to each prompt, but {world_size} {were} started; "
            "start an even number, or use cfg two_passes"
        )
    return world_size // 2


def build_cfg_parallel(topology: Topology, *, ulysses: int, ring: int, hop_sms: int = 0) -> CfgParallel:
    """Make all process groups; every rank must call this. ``ulysses`` x ``ring`` is one half."""
    size = ranks_per_half(topology.world_size)
    index = topology.rank // size
    pair = own_group(topology, [range(other, 2 * size, size) for other in range(size)])
    mesh = build_mesh(topology, ulysses=ulysses, ring=ring, parts=2, hop_sms=hop_sms)
    return CfgParallel(index, mesh, pair)
