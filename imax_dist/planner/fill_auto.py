"""What parallel settings leave to the planner, decided for ranks that somebody else has already placed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from imax_dist.errors import ImaxError
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.request import Request
from imax_dist.planner.choose import Choice, choose
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import Hardware, hardware_of_gpu, load_hardware
from imax_dist.planner.workload import with_settings, workloads

LEAST_SHARE = 0.5
"""Of the network's bandwidth in the hardware file, that ranks on several hosts have to find."""


def fill_auto(
    parallel: ParallelSettings, requests: Sequence[Request], *, gpu: str, per_host: int, hosts: int
) -> ParallelSettings:
    """``native: auto`` and ``compile: auto`` as the planner finds them faster, and the least link of hosts.

    ``gpu`` is torch's name of it, empty for CPUs. What the planner does not know is left as it was: rank 0
    makes the native picture, blocks are not compiled, and any link will do.
    """
    ranks = per_host * hosts
    spans = hosts > 1 and bool(gpu) and parallel.least_link_gb_s is None
    if ranks == 1 or not (spans or "auto" in (parallel.native, parallel.compile)):
        return parallel
    with suppress(ImaxError):  # the renderer says what is wrong with a poster, and downloads a model
        hardware = hardware_of_gpu(gpu) if gpu else load_hardware("cpu")
        if spans:
            parallel = replace(parallel, least_link_gb_s=least_link(hardware))
        plain, cluster = workloads(requests, device=hardware.kind), Cluster(hardware, per_host, hosts)

        def chosen(count: int) -> Choice:
            works = [with_settings(work, parallel, device=hardware.kind) for work in plain[:count]]
            return choose(works, cluster, gangs=1, ranks=ranks)

        if parallel.native == "auto":  # of one poster: these ranks make none ahead, however many they make
            shared = chosen(1).chosen.longest.native_by == "shared"
            parallel = replace(parallel, native="shared" if shared else "rank0")
        if parallel.compile == "auto":
            parallel = replace(parallel, compile="regional" if chosen(len(plain)).compiled else "none")
    return parallel


def least_link(hardware: Hardware) -> float:
    """GB/s a rank, below which a link between hosts is refused."""
    return LEAST_SHARE * hardware.network.bandwidth / 1e9
