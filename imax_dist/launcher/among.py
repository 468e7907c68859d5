"""Ranks that watch over each other, where what started them does not: torchrun, srun, mpirun.

Each rank of a host judges all of that host, so that it does not matter which one stops. The first to see a
hang says so, kills the others and ends with the exit code of a lost gang (DECISIONS 95).
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from imax_dist.launcher.watch import RankWatch
from imax_dist.liveness.heartbeat import beating
from imax_dist.parallel.devices import gather_texts
from imax_dist.parallel.topology import Topology


@contextmanager
def watched(
    topology: Topology, beacons: Path | None, *, evidence: Path, compiled: bool = False
) -> Iterator[Topology]:
    """``topology`` whose marks are looked at: by the launcher that reads ``beacons``, or by the ranks.

    Every rank must call this, in a process group. Without a launcher a rank alone has nobody to look at it.
    ``compiled``: first steps compile the network's blocks, and take longer.
    """
    with ExitStack() as held:
        if beacons is None and topology.world_size == 1:
            yield topology
            return
        folder = _folder_of_host(topology, held) if beacons is None else beacons
        beacon = held.enter_context(beating(topology.rank, folder, device=topology.device))
        if beacons is None:
            held.enter_context(RankWatch(folder, evidence=evidence, compiled=compiled, speaker="imax"))
        yield replace(topology, marks=beacon)


def _folder_of_host(topology: Topology, held: ExitStack) -> Path:
    """One that the lowest rank of this host makes, for its user alone, and removes when it has ended well."""
    hosts = gather_texts(_host(), topology)
    lowest = hosts.index(hosts[topology.rank])
    made = ""
    if topology.rank == lowest:
        made = held.enter_context(_temporary())
    folder = Path(gather_texts(made, topology)[lowest])
    return folder if folder.is_dir() else Path(held.enter_context(_temporary()))  # containers on one host


def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="imax-ranks-", ignore_cleanup_errors=True)


def _host() -> str:
    """Where process ids mean the same: a container's 7 is another process than its host's 7."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
