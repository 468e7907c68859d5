"""One guided step on 4096 x 4096 latents: torch here against a PyWavelets round trip.

The authors' code leaves torch for the filter: every step it runs a wavelet transform with zeroed
details in NumPy, once on the target velocity and once on the velocity. This prints a Markdown row per
filter with the median seconds of both and their ratio.

    python -m tests.bench.guidance_step [--side 512] [--runs 9]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pywt
import torch
from torch import Tensor

from imax_dist.geometry import AxisScale
from imax_dist.method.flow import euler_step, velocity_towards
from imax_dist.method.guidance import GuidanceWeights, guided_velocity
from imax_dist.method.projection import PROJECTIONS

SIGMA, SIGMA_NEXT = 0.6, 0.55
SCALE = AxisScale(height=4.0, width=4.0)
WEIGHTS = GuidanceWeights(low=0.8)
LEVELS = {"matched_blocks": 2, "haar_level_1": 1}
"""Filters of imax_dist and the Haar level that gives the same result at four times native."""

Latents = tuple[Tensor, Tensor, Tensor]
"""Velocity, x and reference, (1, C, H, W) each."""


def torch_step(latents: Latents, name: str) -> Tensor:
    """Filter and Euler step of imax_dist."""
    velocity, x, reference = latents
    project = PROJECTIONS[name](SCALE)
    guided = guided_velocity(velocity, x, reference, SIGMA, project=project, weights=WEIGHTS)
    return euler_step(x, guided, SIGMA, SIGMA_NEXT)


def wavelet_low_band(x: Tensor, level: int) -> Tensor:
    """Haar low band of every channel, one at a time in NumPy, as a tensor again."""
    channels = []
    for channel in x[0].numpy():
        low, *details = pywt.wavedec2(channel, "haar", level=level)
        zeroed = [tuple(np.zeros_like(band) for band in bands) for bands in details]
        channels.append(pywt.waverec2([low, *zeroed], "haar"))
    return torch.from_numpy(np.stack(channels))[None]


def wavelet_step(latents: Latents, name: str) -> Tensor:
    """The same step with the filter outside torch, on the target velocity and on the velocity."""
    velocity, x, reference = latents
    level = LEVELS[name]
    target = velocity_towards(x, reference, SIGMA)
    pull = wavelet_low_band(target, level) - wavelet_low_band(velocity, level)
    return euler_step(x, velocity + WEIGHTS.low * pull, SIGMA, SIGMA_NEXT)


def median_seconds(step: Callable[[], Tensor], runs: int) -> float:
    """Median of ``runs`` timed calls after one that is not counted."""
    step()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def row(name: str, latents: Latents, runs: int) -> str:
    """One line of the table. Raises AssertionError if the two ways do not agree."""
    torch.testing.assert_close(torch_step(latents, name), wavelet_step(latents, name), rtol=0, atol=1e-4)
    ours = median_seconds(lambda: torch_step(latents, name), runs)
    theirs = median_seconds(lambda: wavelet_step(latents, name), runs)
    return f"| {name} | {1e3 * ours:.1f} | {1e3 * theirs:.1f} | {theirs / ours:.1f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time one guided step, torch against PyWavelets.")
    parser.add_argument("--side", type=int, default=512, help="latent pixels a side")
    parser.add_argument("--runs", type=int, default=9, help="timed runs, at least 7")
    options = parser.parse_args(arguments)
    if options.runs < 7:
        parser.error("--runs must be at least 7 for a median worth quoting")
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    velocity, x, reference = torch.randn(3, 1, 16, options.side, options.side, generator=rng)
    print("| filter | torch, ms | PyWavelets, ms | ratio |\n|---|---|---|---|")
    for name in LEVELS:
        print(row(name, (velocity, x, reference), options.runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
