"""Seconds and peak memory of one step and of a whole render at 1x, 2x, 4x on 1 and 2 processes.

One thread a process. ``python -m tests.bench.render [--repeat 3]`` prints Markdown rows; each case runs
in fresh processes, so that peaks are its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
SIZES = {"1x": "256x256", "2x": "512x512", "4x": "1024x1024"}


def worker(size: str) -> None:
    """One rank's render with the model loaded before the clock starts; rank 0 prints JSON."""
    import torch

    from imax_dist.errors import Preempted
    from imax_dist.events import RenderEvent, StepDone
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.models.load import load_model
    from imax_dist.parallel.topology import detect, process_group
    from imax_dist.pipeline.memory import peak_memory
    from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
    from imax_dist.pipeline.render import render_with
    from imax_dist.pipeline.request import Request

    torch.set_num_threads(1)
    quiet_libraries()
    steps: list[float] = []

    def listen(event: RenderEvent) -> None:
        timed = "native" if size == SIZES["1x"] else "extrapolated"
        if isinstance(event, StepDone) and event.stage == timed:
            steps.append(event.seconds)

    topology = detect(device="cpu")
    with process_group(topology):
        model = load_model("embedded", device=topology.device)
        ranks = join_ranks(ParallelSettings(), topology, heads=model.spec.heads)
        before = peak_memory()["host"]
        alone = Request(PROMPT, size=size, seed=3, preset="direct")
        with contextlib.suppress(Preempted):  # one step of full size, no VAE or guidance image
            render_with(model, ranks, alone, stop=lambda: True)
        step_peak = peak_memory()["host"]
        started, cpu = time.perf_counter(), time.process_time()
        render_with(model, ranks, Request(PROMPT, size=size, seed=3), listen=listen)
        if topology.is_first:
            report = {
                "step": statistics.median(steps),
                "step_peak_above_load": step_peak - before,
                "render": time.perf_counter() - started,
                "cpu": time.process_time() - cpu,
                "peak": peak_memory()["host"],
                "peak_above_load": peak_memory()["host"] - before,
            }
            print(json.dumps(report))


def measure(size: str, processes: int, repeat: int) -> dict[str, float]:
    """Medians over ``repeat`` runs in fresh processes."""
    command = [sys.executable, "-m"]
    command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] * (
        processes > 1
    )
    command += ["tests.bench.render", "--worker", size]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = []
    for _ in range(repeat):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", metavar="WxH", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    columns = "step, s | its peak, MiB | render, s | CPU s of rank 0 | its peak, MiB | whole process"
    print(f"| size | processes | {columns} |")
    print("|---|---|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        for processes in (1, 2):
            found = measure(size, processes, options.repeat)
            print(
                f"| {name} ({size}) | {processes} | {found['step']:.3f} | "
                f"{found['step_peak_above_load'] * 1024:.0f} | {found['render']:.2f} | {found['cpu']:.2f} | "
                f"{found['peak_above_load'] * 1024:.0f} | {found['peak'] * 1024:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
