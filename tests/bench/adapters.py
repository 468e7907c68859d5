"""Seconds of each adapter against diffusers' own pipeline at native size, the same prompt, noise and steps.

    python tests/bench/adapters.py [--side 384] [--steps 4] [--repeats 5] [NAME ...]

Tiny networks at ``--side`` pixels (576 tokens at 384): few channels, so that what an adapter adds weighs
more than in a real model. Both are called in turn in one process; the ratio is that of the medians. Goal:
<= 1.02.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "protocol"))
from their_pipelines import THEIRS, pipeline

from imax_dist.models.cfg_execution import CfgExecution, batched, two_passes
from imax_dist.models.libraries import quiet_libraries
from imax_dist.models.load import load_model
from imax_dist.models.tiny import TINY, make_tiny
from imax_dist.pipeline.noise import pass_noise
from imax_dist.pipeline.plan import PosterPlan, make_plan
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.sampler import Sampler, sequence_alone
from imax_dist.pipeline.state import PassState

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
BATCHED = {"lumina-next", "sd3.5-medium"}
"""Their own pipelines compute the two prompts of guidance as one batch; so does our call (--cfg batched)."""


def ours(plan: PosterPlan, model: Any, passes: CfgExecution) -> None:
    native = plan.native
    conditioning = model.encode_prompt(PROMPT, negative=native.guidance_scale != 1.0)
    sampler = Sampler.of(native, model, conditioning, sequence_alone(native, passes))
    sampler.run(PassState(0, 0, pass_noise(native, model)))


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        call()
    return time.perf_counter() - start


def measure(name: str, folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds: diffusers' call, ours."""
    settings = folder / "imax.yaml"
    settings.write_text(settings.read_text().replace("native_side: 64", f"native_side: {options.side}"))
    model, pipe = load_model(str(folder), device=torch.device("cpu"), dtype="float32"), pipeline(folder)
    size = f"{options.side}x{options.side}"
    plan = make_plan(Request(PROMPT, size=size, steps=options.steps, model=str(folder)), model.spec)
    noise = pass_noise(plan.native, model)
    passes = batched if name in BATCHED else two_passes
    both = (lambda: THEIRS[name].latents(pipe, plan, noise), lambda: ours(plan, model, passes))
    for call in both:
        seconds(call)
    times = [[seconds(call) for call in both] for _ in range(options.repeats)]
    theirs, own = (statistics.median(column) for column in zip(*times, strict=True))
    return theirs, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=[], help=f"of {', '.join(TINY)}")
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    print(f"{'model':<16} {'diffusers':>10} {'ours':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as root:
        for name in options.names or TINY:
            theirs, own = measure(name, make_tiny(name, Path(root) / name), options)
            print(f"{name:<16} {theirs:>8.3f} s {own:>8.3f} s {own / theirs:>6.3f}", flush=True)


if __name__ == "__main__":
    main()
