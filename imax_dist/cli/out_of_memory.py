"""Out of memory as one sentence: whose memory, and the smallest plan that would have fitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from imax_dist.errors import ImaxError, OutOfMemory

if TYPE_CHECKING:
    from imax_dist.parallel.topology import Topology
    from imax_dist.pipeline.request import Request


@contextmanager
def reported_out_of_memory(request: Request, topology: Topology) -> Iterator[None]:
    """Raise OutOfMemory with a remedy for what torch raises when an allocation fails."""
    from imax_dist.launcher.rank_failure import is_out_of_memory

    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise OutOfMemory(
            f"rank {topology.rank} of {topology.world_size} ran out of memory ({reason}); "
            f"{_remedy(request, topology)}"
        ) from error


def _remedy(request: Request, topology: Topology) -> str:
    """The least ranks that the planner finds room on, else where to ask."""
    import torch

    on_gpu = topology.device.type == "cuda"
    name = torch.cuda.get_device_name(topology.device) if on_gpu else ""
    plan = smallest_plan(request, device_name=name, more_than=topology.world_size)
    return plan or "render a smaller size, or on more ranks; `imax plan --gpus NxDEVICE` says what fits"


def smallest_plan(request: Request, *, device_name: str, more_than: int) -> str | None:
    """A sentence with the least ranks above ``more_than`` that have room for ``request``.

    None for a device that configs/hardware does not describe, a model whose sizes are not known, or a poster
    that fits on no 64 ranks. ``device_name`` is torch's, for example ``NVIDIA H100 80GB HBM3``.
    """
    from imax_dist.planner.hardware import hardware_of_gpu
    from imax_dist.planner.more_ranks import smallest_fit
    from imax_dist.planner.workload import workloads

    with suppress(ImaxError):
        works, hardware = workloads([request], device="gpu"), hardware_of_gpu(device_name)
        room = smallest_fit(works, hardware, than=more_than)
        return None if room is None else f"start {room.ranks} ranks: {room.sentence}"
    return None
