"""What xDiT published of FLUX.1 on A100 and H100, and the planner's seconds for the same denoising.

Their seconds hold the prompt, the VAE and the pipeline around; those are taken off first (``around``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from unittest.mock import patch

from imax_dist.models.blueprint import find_blueprint
from imax_dist.pipeline.request import Request
from imax_dist.planner import communication, time
from imax_dist.planner.cluster import Cluster
from imax_dist.planner.hardware import Curve, Hardware, load_hardware
from imax_dist.planner.split import Split
from imax_dist.planner.workload import Workload, workload_of


class Cell(NamedTuple):
    """One published number."""

    model: str
    size: str
    steps: int
    gpu: str
    split: Split
    compiled: bool
    seconds: float
    around: float
    """Seconds of it that are no steps."""

    @property
    def fitted(self) -> bool:
        """Whether something of the planner's side was set on this cell."""
        if self.gpu == "A100":
            return (self.size, self.split.ranks) == ("4096x4096", 1)
        return not self.compiled and self.split in SET_ON

    @property
    def denoising(self) -> float:
        return self.seconds - self.around


AROUND_1024 = 0.2
"""A quarter of the 0.59 s that a decode of 2048 px took whole on an H100 (BENCHMARKS.md), and the prompt."""
AROUND_A100 = {"2048x2048": 1.42, "4096x4096": 0.90}
"""What does not shrink with the GPUs: c of c + d / GPUs, fitted to each series, good to 0.8 %."""
TABLE = {
    Split(1, 1): (6.71, 4.30),
    Split(2, 1): (4.38, 2.68),
    Split(1, 2): (5.31, 2.60),
    Split(2, 2): (5.19, 1.80),
    Split(4, 1): (4.24, 1.63),
    Split(1, 4): (5.11, 1.98),
}
"""docs/performance/flux.md of xDiT: FLUX.1-dev, 1024 px, 28 steps on H100, eager and compiled."""
FIGURE = {"2048x2048": (11.06, 6.17, 3.80, 2.63), "4096x4096": (79.03, 39.48, 20.10, 10.63)}
"""Its figure of August 2024: FLUX.1-schnell, 4 eager steps on 1, 2, 4 and 8 A100."""
SET_ON = {Split(1, 1), Split(4, 1)}
"""Eager cells that EAGER_TRAFFIC and EAGER_DISPATCH were set on."""
EAGER_TRAFFIC = 2.14
"""Bytes of the element-wise kernels of diffusers' blocks of 2024 against today's with our processor."""
EAGER_DISPATCH = 42.7e-6
"""Host seconds a kernel of their eager program; of ours 19 us on the H100 that was measured."""
FLASH_2 = 367.5e12
"""FLOP/s of FlashAttention-2, which they had, on that H100 (359 to 376, BENCHMARKS.md); cuDNN has 667."""

THEIR_RING = {"MERGE_PASSES": 6, "KERNELS_A_PLACE": 8}
"""How a block of keys was merged, by them and by us before it was one kernel."""


def one_piece(keys: int, tokens: int) -> int:
    """They exchanged all heads at once."""
    del keys, tokens
    return 1


CELLS = [
    Cell("flux-dev", "1024x1024", 28, "H100", split, compiled, seconds, AROUND_1024)
    for split, both in TABLE.items()
    for compiled, seconds in zip((False, True), both, strict=True)
] + [
    Cell("flux-schnell", size, 4, "A100", Split(ranks, 1), False, seconds, AROUND_A100[size])
    for size, series in FIGURE.items()
    for ranks, seconds in zip((1, 2, 4, 8), series, strict=True)
]


def predicted(cell: Cell) -> float:
    """Seconds of the cell's steps by the planner, with the kernels that they had."""
    work, hardware = work_of(cell), load_hardware(cell.gpu)
    network = work.network
    work = replace(work, network=replace(network, transformer=replace(network.transformer, beside=0)))
    if cell.gpu == "H100":
        work, hardware = as_theirs(work, compiled=cell.compiled)
    cluster = Cluster(hardware, cell.split.ranks)
    passes = work.extrapolated or work.native
    with patch.multiple(time, **THEIR_RING), patch.object(communication, "head_pieces", one_piece):
        return sum(each.steps * time.step_time(work, each, cell.split, cluster).total for each in passes)


def work_of(cell: Cell) -> Workload:
    """Its steps from pure noise."""
    request = Request("a", size=cell.size, preset="direct", model=cell.model, steps=cell.steps)
    return workload_of(request, find_blueprint(cell.model), device="gpu")


def as_theirs(work: Workload, *, compiled: bool) -> tuple[Workload, Hardware]:
    """The measured H100 with FlashAttention-2, and for eager blocks their element-wise kernels and host."""
    hardware = load_hardware("H100-measured")
    rates = replace(hardware.rates["bfloat16"], attention=Curve(((128.0, FLASH_2),)))
    hardware = replace(hardware, rates={"bfloat16": rates})
    if compiled:
        return replace(work, compiled=True), hardware
    net = work.network.transformer
    traffic = {name: EAGER_TRAFFIC * each for name, each in net.traffic.items()}
    network = replace(work.network, transformer=replace(net, traffic=traffic))
    return replace(work, network=network), replace(hardware, dispatch=EAGER_DISPATCH)


def table() -> list[str]:
    """Markdown."""
    lines = [
        "| published (xDiT), denoising | GPUs | split | s | predicted | off |",
        "|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        guess = predicted(cell)
        off = f"{100 * (guess / cell.denoising - 1):+.0f} %" + (" (set on it)" if cell.fitted else "")
        kind = "compiled" if cell.compiled else "eager"
        lines.append(
            f"| {cell.model}, {cell.size}, {cell.steps} steps, {kind} | {cell.split.ranks} {cell.gpu} | "
            f"{cell.split} | {cell.denoising:.2f} | {guess:.2f} | {off} |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
