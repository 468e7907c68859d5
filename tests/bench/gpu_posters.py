"""Whole posters by each attention kernel that is installed: what its steps cost on even and odd grids.

A kernel that is fastest on a bare product may not be in a poster, where every second step has lengths that
are no multiple of 128. ``cudnn_even`` takes those in whole blocks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from imax_dist.errors import ImaxError
from imax_dist.events import RenderEvent, StepDone
from imax_dist.method.patch_shift import is_shifted
from imax_dist.parallel.choose_kernel import FAILURES
from imax_dist.parallel.kernels import candidates
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request
from tests.bench.flux_shape import wait

STEPS = 6
"""Of each pass: the best on each grid counts."""
HEADING = (
    "| size | kernel | s a step, even grid | odd grid | odd / even | poster, s | latents to the first's |\n"
    "|---|---|---|---|---|---|---|"
)


def posters_by_kernel(model: Any, size: str) -> Iterator[str]:
    """A row a kernel; the last cell is the rms difference as a share of the first poster's deviation."""
    yield HEADING
    request = Request("a poster", size=size, preset="one_jump", steps=STEPS, native_steps=STEPS)
    first: torch.Tensor | None = None
    for kernel in candidates(model.device, model.dtype, "exact"):
        try:
            ranks = join_for(model, ParallelSettings(kernel=kernel.name), Topology.alone(model.device))
            _timed(model, ranks, request)  # some compile when a length is new
            even, odd, whole, latents = _timed(model, ranks, request)
        except (ImaxError, *FAILURES) as error:
            yield f"| {size} | {kernel.name} | refused | {str(error).splitlines()[0][:90]} | | | |"
            continue
        first = latents if first is None else first
        apart = ((latents - first).square().mean().sqrt() / first.std()).item()
        steps = f"{even:.3f} | {odd:.3f} | {odd / even:.2f}"
        yield f"| {size} | {kernel.name} | {steps} | {whole:.2f} | {apart:.1e} |"


def _timed(model: Any, ranks: Ranks, request: Request) -> tuple[float, float, float, torch.Tensor]:
    """Seconds of the target size's best step on each grid and of the poster, and its latents."""
    ends: list[float] = []
    best = {False: float("inf"), True: float("inf")}

    def listen(event: RenderEvent) -> None:
        if not isinstance(event, StepDone):
            return
        wait()
        ends.append(time.perf_counter())
        if event.stage == "extrapolated" and event.index > 1:
            shifted = is_shifted(event.index - 1)
            best[shifted] = min(best[shifted], ends[-1] - ends[-2])

    wait()
    started = time.perf_counter()
    found = render_with(model, ranks, request, listen=listen)
    wait()
    return best[False], best[True], time.perf_counter() - started, found.latents.float()
