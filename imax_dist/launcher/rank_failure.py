"""How a rank fails: at once and alone, with one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from imax_dist.errors import GangLost

PEER_LOSS_MESSAGES = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting", "Socket closed")
"""Parts of gloo's messages, which come as plain RuntimeErrors."""


@contextmanager
def lost_ranks_reported(timeout_s: float) -> Iterator[None]:
    """Raise GangLost for a backend's own error when another rank closed its end or fell silent."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise GangLost(
            "another rank was lost: it ended, or its machine did not answer for "
            f"{timeout_s:g} s; run the same command again to resume"
        ) from error


def is_loss(error: RuntimeError) -> bool:
    """Whether this is a collective that missed a peer, and no mistake of this rank's own."""
    return isinstance(error, dist.DistBackendError | dist.DistNetworkError) or any(
        part in str(error) for part in PEER_LOSS_MESSAGES
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or in host memory: the same ranks would fail again."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
