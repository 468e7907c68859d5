"""Which process holds memory on which GPU, for two_gpus.py.

A rank that touches a GPU of another takes half a gigabyte there, most often on GPU 0, which is meant where no
device is named. A process knows its own contexts; their size is what nvidia-smi says, which in a container
may not know our processes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.renderer import render
from tests.bench.two_gpus_renders import CASES

QUERY = ("nvidia-smi", "--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader,nounits")
Memory = dict[tuple[int, str], str]
"""MiB by process and identity of the GPU."""


class Held(NamedTuple):
    """What one rank finds while all of them still live; GPUs by their number."""

    process: int
    own: int
    contexts: tuple[int, ...]
    gpus: tuple[str, ...]
    """The identity of each."""
    listed: Memory


def held_after_a_render(topology: Topology, folder: str) -> Held:
    """Join, render a poster on all ranks, and look."""
    render(next(iter(CASES.values())).request(Path(folder)), topology=topology)
    dist.barrier()
    count = torch.cuda.device_count()
    found = Held(
        os.getpid(),
        topology.device.index,
        tuple(gpu for gpu in range(count) if torch._C._cuda_hasPrimaryContext(gpu)),
        tuple(f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in range(count)),
        _listed(),
    )
    dist.barrier()
    return found


def _listed() -> Memory:
    """Nothing where there is no nvidia-smi, or it fails."""
    try:
        said = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_listing(said)


def read_listing(text: str) -> Memory:
    """What ``QUERY`` prints."""
    found = {}
    for line in text.splitlines():
        process, gpu, memory = (part.strip() for part in line.split(","))
        found[int(process), gpu] = memory
    return found


def table(ranks: Sequence[Held]) -> Iterator[str]:
    """A row a process. Raises RuntimeError after the last if a rank is on a GPU that is not its own."""
    gpus, listed = ranks[0].gpus, ranks[0].listed
    yield f"| process | {' | '.join(f'GPU {number}, MiB' for number in range(len(gpus)))} | |"
    yield "|---" * (len(gpus) + 2) + "|"
    strays = []
    for rank, held in enumerate(ranks):
        on = {number for number, gpu in enumerate(gpus) if (held.process, gpu) in listed} | {*held.contexts}
        foreign = sorted(on - {held.own})
        strays += [f"rank {rank} on GPU {number}" for number in foreign]
        cells = [
            listed.get((held.process, gpu), "a context" if number in on else "-")
            for number, gpu in enumerate(gpus)
        ]
        yield f"| rank {rank} | {' | '.join(cells)} | {'NOT ITS OWN' if foreign else ''} |"
    own = {held.process for held in ranks}
    for process in sorted({process for process, _ in listed} - own):
        yield f"| {process}, no rank | {' | '.join(listed.get((process, gpu), '-') for gpu in gpus)} | |"
    if not own & {process for process, _ in listed}:
        yield "\nnvidia-smi knows none of the ranks: no sizes"
    if strays:
        raise RuntimeError(f"memory on a GPU of another: {', '.join(strays)}")
