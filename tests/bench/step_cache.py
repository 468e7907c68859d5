"""Step caching: how far its pictures are from the exact ones, and the time it saves. The embedded model.

``python -m tests.bench.step_cache [--size 256x256] [--n 6] [--preset imax]`` prints Markdown: PSNR in dB of
pixels in [0, 1] against the same poster without a cache, and the ratio of the pass's CPU seconds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from imax_dist.events import RenderEvent, StageDone, StageStarted
from imax_dist.method.step_cache import STEP_CACHES
from imax_dist.models.base import FlowModel
from imax_dist.models.load import load_model
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.ranks import ParallelSettings, join_for
from imax_dist.pipeline.render import render_with
from imax_dist.pipeline.request import Request

PROMPTS = (
    "a red sun on the left in a blue sky over the sea with two white boats",
    "a yellow moon in a dark sky over the snow with one black house",
    "a white moon in a dark sky over the sea with one red boat",
    "a red sun on the right in a blue sky over the grass with two black houses",
    "a yellow sun in a blue sky over the snow with two red houses",
    "a white moon on the left in a dark sky over the sea with three white boats",
)


def rendered(model: FlowModel, request: Request) -> tuple[Tensor, float]:
    """Pixels, and CPU seconds of the target-size pass."""
    clock: dict[type, float] = {StageStarted: 0.0, StageDone: 0.0}

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StageStarted | StageDone) and event.stage == "extrapolated":
            clock[type(event)] = time.process_time()

    topology = Topology.alone()
    rendering = render_with(model, join_for(model, ParallelSettings(), topology), request, listen=listen)
    assert rendering.pixels is not None
    return rendering.pixels, clock[StageDone] - clock[StageStarted]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Step caching: deviation and time.")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--n", type=int, default=len(PROMPTS))
    parser.add_argument("--preset", default="imax")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = load_model("embedded", device=torch.device("cpu"))
    decibels: dict[str, list[float]] = {tier: [] for tier in STEP_CACHES if tier != "none"}
    ratios: dict[str, list[float]] = {tier: [] for tier in decibels}
    for seed, prompt in enumerate(PROMPTS[: options.n]):
        request = dict(prompt=prompt, size=options.size, seed=seed, preset=options.preset)
        exact, exact_s = rendered(model, Request(**request))
        for tier in decibels:
            pixels, tier_s = rendered(model, Request(**request, method={"cache": tier}))
            decibels[tier].append(-10.0 * math.log10((pixels - exact).square().mean().item()))
            ratios[tier].append(tier_s / exact_s)
    print(
        "| preset | size | n | cache | PSNR dB, mean (least) | time of the pass |\n|---|---|---|---|---|---|"
    )
    for tier, found in decibels.items():
        shown = f"{statistics.mean(found):.1f} ({min(found):.1f})"
        ratio = statistics.median(ratios[tier])
        print(
            f"| {options.preset} | {options.size} | {options.n} | {tier} | {shown} | {ratio:.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
