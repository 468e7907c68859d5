"""Messages between pairs of ranks: always posted as one batch, through host memory where a backend needs it.

On NCCL a batch travels on the group's own communicator, while a single send or receive would make one more
for each pair. gloo sends no memory of a GPU, so that two ranks on one GPU, or a machine without NCCL, go
through the host (DECISIONS 86).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Posted:
    """Messages on their way: neither what is sent nor what is received may be touched before ``wait``."""

    works: tuple[dist.Work, ...]
    sent: tuple[Tensor, ...]
    """Kept until then."""
    staged: tuple[tuple[Tensor, Tensor], ...]
    """(where it belongs, where it arrives), for what came through host memory."""

    @property
    def size(self) -> int:
        """Bytes that are sent."""
        return sum(x.numel() * x.element_size() for x in self.sent)

    def wait(self) -> None:
        for work in self.works:
            work.wait()
        for place, arrived in self.staged:
            place.copy_(arrived)


def post(
    sends: Sequence[tuple[Tensor, int]],
    receives: Sequence[tuple[Tensor, int]],
    group: dist.ProcessGroup | None,
) -> Posted:
    """Post (tensor, global rank) pairs; between two ranks messages match in the order of their lists.

    What is sent must be contiguous, and so must what is received into.
    """
    tensors = [x for x, _ in (*sends, *receives)]
    if not tensors:
        return Posted((), (), ())
    host = needs_host(tensors[0].device.type, dist.get_backend(group))
    outgoing = [(x.cpu() if host else x, peer) for x, peer in sends]
    incoming = [(x.new_empty(x.shape, device="cpu") if host else x, peer) for x, peer in receives]
    operations = [
        *(dist.P2POp(dist.isend, x, peer, group=group) for x, peer in outgoing),
        *(dist.P2POp(dist.irecv, x, peer, group=group) for x, peer in incoming),
    ]
    works = tuple(dist.batch_isend_irecv(operations))
    staged = [(place, arrived) for (place, _), (arrived, _) in zip(receives, incoming, strict=True)]
    return Posted(works, tuple(x for x, _ in outgoing), tuple(staged if host else ()))


def needs_host(device: str, backend: str) -> bool:
    """Whether messages of a device's memory have to be copied to the host first."""
    return device == "cuda" and backend == "gloo"
