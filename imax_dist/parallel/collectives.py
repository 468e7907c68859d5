"""The one collective whose name changed: torch 2.13 renamed ``all_gather_into_tensor``."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def all_gather_single(gathered: Tensor, piece: Tensor, group: dist.ProcessGroup | None) -> None:
    """Fill ``gathered`` (ranks x rows, ...) with every rank's ``piece`` (rows, ...), in rank order."""
    renamed = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
    renamed(gathered, piece, group=group)
