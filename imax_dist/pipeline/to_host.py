"""Rows from a GPU to the host's memory: one band is copied while the next is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Copying(NamedTuple):
    """A band on its way; ``arrived`` None: it is there already."""

    rows: Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> Tensor:
        """The rows, once they are all there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.rows


def on_host(bands: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The same bands in the host's memory, each good until the next one is asked for."""
    return double_buffered(bands, pinned=True) if device.type == "cuda" else bands


def double_buffered(bands: Iterator[Tensor], *, pinned: bool) -> Iterator[Tensor]:
    """Each band copied into one of two buffers in turn, and handed out once the next is under way.

    So the device has the next band to compute while whoever asked is busy with this one. ``pinned`` memory,
    which a GPU writes by itself, is only to be had on a machine with one.
    """
    buffers: list[Tensor | None] = [None, None]
    before: Copying | None = None
    for number, rows in enumerate(bands):
        buffer = buffers[number % 2]
        if buffer is None or len(buffer) < len(rows):
            buffer = buffers[number % 2] = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=pinned)
        coming = Copying(buffer[: len(rows)], torch.cuda.Event() if pinned else None)
        coming.rows.copy_(rows, non_blocking=True)
        if coming.arrived is not None:
            coming.arrived.record()
        if before is not None:
            yield before.wait()
        before = coming
    if before is not None:
        yield before.wait()
