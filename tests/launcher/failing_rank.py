"""A rank of `imax generate` whose peer fails alone, as on NCCL: destroying the group waits for all ranks.

Rank 1 runs out of memory where ``Renderer.render`` would compute; rank 0
waits in a collective that never completes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from imax_dist.__main__ import entry
from imax_dist.pipeline.renderer import Renderer


def destroy_like_nccl(group: Any = None) -> None:
    """ncclCommDestroy is a collective of the node's ranks (NCCL's documentation)."""
    dist.barrier()


def render(*arguments: Any, **named: Any) -> None:
    """Fails on rank 1 only."""
    if dist.get_rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.20 GiB. GPU 1 has 79.10 GiB")
    dist.barrier()


dist.destroy_process_group = destroy_like_nccl
Renderer.render = render  # type: ignore[method-assign, assignment]
entry()
