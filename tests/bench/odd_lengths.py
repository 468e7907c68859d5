"""What the odd grid of patch shift costs attention by kernel, and what whole blocks save (DECISIONS 115).

A section of gpu.py and of two_gpus.py.
"""

from __future__ import annotations

from functools import partial

import torch

from imax_dist.parallel.attention import attend
from imax_dist.parallel.kernels import BLOCK, Kernel, at_even_lengths, default_run
from imax_dist.parallel.topology import Topology
from tests.bench.two_gpus_ranks import best, usable_kernels


@torch.no_grad()
def odd_lengths(
    topology: Topology, even: int, odd: int, shape: tuple[int, int]
) -> dict[str, dict[str, float]]:
    """Seconds of attention by kernel: on the even grid, and on the odd one by what is done to its lengths.

    ``shape`` are heads and channels of one. "keys cut" leaves out what is over: what whole blocks of both
    would take if the rest were free.
    """
    kind = torch.bfloat16 if topology.device.type == "cuda" else torch.float32
    more, fewer = -(-odd // BLOCK) * BLOCK, odd // BLOCK * BLOCK
    lengths = {
        "even": (even, even), "odd": (odd, odd), "queries lengthened": (more, odd), "keys cut": (more, fewer),
    }  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for kernel in usable_kernels(topology, kind):
        whole = Kernel("whole blocks", at_even_lengths(kernel.run, default_run(kernel.device, kind)), "", ())
        ways = [(name, *each, kernel) for name, each in lengths.items()] + [(whole.name, odd, odd, whole)]
        found[kernel.name] = {}
        for name, queries, keys, way in ways:
            q, k, v = (
                torch.randn(1, rows, *shape, device=topology.device, dtype=kind)
                for rows in (queries, keys, keys)
            )
            found[kernel.name][name] = best(partial(attend, q, k, v, kernel=way), topology)
    return found


ODD_HEADING = (
    "| odd grid | kernel | even, ms | odd as it is | queries lengthened | keys cut | whole blocks "
    "| odd / even | whole blocks / even |\n|---|---|---|---|---|---|---|---|---|"
)


def odd_rows(topology: Topology, *, tiny: bool) -> list[str]:
    """Of FLUX.1's heads at 2048 and 4096 px, text with them."""
    grids = [(256, 257)] if tiny else [(16896, 17153), (66048, 66561)]
    rows = []
    for even, odd in grids:
        for name, seconds in odd_lengths(topology, even, odd, (4, 16) if tiny else (24, 128)).items():
            cells = [f"{1e3 * each:.2f}" for each in seconds.values()]
            cells += [f"{seconds[way] / seconds['even']:.3f}" for way in ("odd", "whole blocks")]
            rows.append(f"| {odd} | {name} | {' | '.join(cells)} |")
    return rows
