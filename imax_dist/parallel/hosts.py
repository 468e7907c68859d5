"""Ranks on several hosts: which Ulysses degrees keep each exchange of heads within one, and the link between.

An exchange of heads moves everything twice a block and cannot be hidden; a ring hop travels while a block is
computed. So Ulysses stays within a host, and the ring crosses hosts (DECISIONS 87).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from imax_dist.errors import BadConfig, SlowLink
from imax_dist.parallel.broadcast import highest
from imax_dist.parallel.point_to_point import post
from imax_dist.parallel.topology import Topology

PROBE_BYTES = 64 << 20
PROBES = 3


def boundaries(hosts: Sequence[str]) -> list[int]:
    """Ranks at which another host begins; ``hosts`` by rank."""
    return [rank for rank in range(1, len(hosts)) if hosts[rank] != hosts[rank - 1]]


def ranks_together(hosts: Sequence[str]) -> int:
    """What a Ulysses degree has to divide so that no group is split over hosts; 0: any does."""
    return math.gcd(*boundaries(hosts))


def check_ulysses_within_hosts(hosts: Sequence[str], ulysses: int) -> None:
    """Raise BadConfig if a Ulysses group would lie on two hosts."""
    together = ranks_together(hosts)
    if not together or together % ulysses == 0:
        return
    split = next(rank for rank in boundaries(hosts) if rank % ulysses)
    legal = [degree for degree in range(1, together + 1) if together % degree == 0]
    raise BadConfig(
        f"parallel: ulysses {ulysses} would split a group over hosts: rank {split - 1} is on "
        f"{hosts[split - 1]}, rank {split} on {hosts[split]}; it can be {', '.join(map(str, legal))} here, "
        "the ring takes the rest"
    )


def slowest_link(topology: Topology, hosts: Sequence[str], *, size: int = PROBE_BYTES) -> float | None:
    """Bytes a second from each rank to its counterpart on the next host, all at once; the slowest rank's.

    None on one host. Every rank must call this.
    """
    names = list(dict.fromkeys(hosts))
    if len(names) == 1:
        return None
    by_host = [[rank for rank, host in enumerate(hosts) if host == name] for name in names]
    index = names.index(hosts[topology.rank])
    place = by_host[index].index(topology.rank)
    pairs = min(map(len, by_host))
    sent = torch.zeros(size, dtype=torch.uint8, device=topology.device)
    received = torch.empty_like(sent)
    least = math.inf
    for _ in range(1 + PROBES):
        highest(0, topology)  # all begin at once
        started = time.perf_counter()
        if place < pairs:
            following, preceding = (by_host[(index + step) % len(names)][place] for step in (1, -1))
            post([(sent, following)], [(received, preceding)], None).wait()
            received[-1].item()
        least = min(least, time.perf_counter() - started)
    return size / (1e-6 * max(1, highest(round(1e6 * least), topology)))


def check_link(found: float, least: float) -> None:
    """Raise SlowLink if the link between hosts carries less than ``least`` bytes a second."""
    if found < least:
        raise SlowLink(
            f"parallel: the link between hosts carries {found / 1e9:.2f} GB/s a rank, and at least "
            f"{least / 1e9:.2f} are needed (half of what the hardware file says); keep a gang on one host "
            "with fewer ranks, or see cluster/README.md on RDMA"
        )
