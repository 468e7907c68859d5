"""A rank of `imax generate` whose peer fails alone, as on NCCL: destroying the group waits for all ranks.

Rank 1 runs out of memory, raises or is killed, where ``Renderer.render`` would compute; rank 0 waits in a
collective that never completes. With FAILING_RANK_REAL on GPUs nothing is emulated: the allocation is, and so
is NCCL.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imax_dist.__main__ import entry
from imax_dist.models import libraries
from imax_dist.pipeline.renderer import Renderer

HOW = os.environ.get("FAILING_RANK_HOW", "out of memory")
STRUCK = os.environ.get("FAILING_RANK_STRUCK")
REAL = "FAILING_RANK_REAL" in os.environ


def destroy_like_nccl(group: Any = None) -> None:
    """ncclCommDestroy is a collective of the node's ranks (NCCL's documentation)."""
    dist.barrier()


def render(renderer: Renderer, *arguments: Any, **named: Any) -> None:
    """Fails on rank 1 only."""
    dist.barrier()
    if dist.get_rank() == 1:
        if STRUCK:
            Path(STRUCK).write_text(str(time.time()))
        if HOW == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if HOW == "raises":
            raise RuntimeError("planted")
        if REAL:
            torch.empty(1 << 50, dtype=torch.uint8, device=renderer.topology.device)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.20 GiB. GPU 1 has 79.10 GiB")
    dist.barrier()


if not REAL:
    dist.destroy_process_group = destroy_like_nccl
    libraries.quiet_libraries = lambda: None  # nothing is computed, and they are half of a rank's start
Renderer.render = render  # type: ignore[method-assign, assignment]
entry()
