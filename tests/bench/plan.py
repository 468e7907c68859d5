"""The planner against the clock: predicted and measured steps and renders on this CPU, 1 and 2 processes.

Everything is in CPU seconds of one rank, the least of several, since other work on a machine lengthens a wall
clock. The embedded model at 2x and 4x and a FLUX shape of 512 channels run in fresh processes, each of which
measures its rates (as ``imax doctor --measure`` does) right before it renders. ``--gpus`` prints predictions
only: published points and strong scaling of FLUX.1-dev to 8, 16 and 64 GPUs.

    python -m tests.bench.plan [--repeat 3] [--gpus]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT = "a red sun on the left in a blue sky over the sea with two white boats"
WIDER = dict(num_layers=2, num_single_layers=4, attention_head_dim=64, heads=8, axes_dims_rope=(8, 28, 28))
WIDER_SETTINGS = """
native_side: 128
steps: {native: 4, extrapolated: 6}
guidance_scale: {native: 2.0, extrapolated: 1.0}
text_tokens: 64
native_shift: 1.6
shift_factor: 1.5
"""
ACCEPTED = 0.15


def worker(model_name: str, size: str) -> None:
    """One rank; rank 0 prints its best step of the last pass and the whole render, in its own CPU seconds."""
    import torch

    from imax_dist.models.load import load_model
    from imax_dist.models.quiet import quiet_libraries
    from imax_dist.parallel.topology import detect, process_group
    from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
    from imax_dist.pipeline.render import render_with
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.measure import measure_kernels

    torch.set_num_threads(1)
    quiet_libraries()
    marks: list[float] = []

    def listen(name: str, fields: dict[str, Any]) -> None:
        if name == "step" and fields["stage"] == "extrapolated":
            marks.append(time.process_time())

    topology = detect(device="cpu")
    with process_group(topology):
        model = load_model(model_name, device=topology.device)
        ranks = join_ranks(ParallelSettings(), topology, heads=model.spec.heads)
        render_with(
            model, ranks, Request(PROMPT, size=size, seed=2, model=model_name, steps=1, native_steps=1)
        )
        kernels = measure_kernels(topology.device)
        started = time.process_time()
        render_with(model, ranks, Request(PROMPT, size=size, seed=3, model=model_name), listen=listen)
        total = time.process_time() - started
        steps = [after - before for before, after in itertools.pairwise(marks)]
        if topology.is_first:
            pairs = [(a + b) / 2 for a, b in itertools.pairwise(steps)]  # a plain and a shifted step
            print(json.dumps({"step": min(pairs), "render": total, "kernels": kernels}))


def run_fresh(model: str, size: str, *, processes: int, repeat: int) -> dict[str, Any]:
    """The run with the fastest step of ``repeat`` fresh ones."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["tests.bench.plan", "--worker", model, size]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = []
    for _ in range(repeat):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return min(runs, key=lambda run: run["step"])


def with_widths(kernels: dict[str, Any]) -> dict[str, Any]:
    """JSON's text keys of the curves as whole numbers again."""
    rates = {
        dtype: {name: {int(width): rate for width, rate in curve.items()} for name, curve in own.items()}
        for dtype, own in kernels["rates"].items()
    }
    return {**kernels, "rates": rates}


def compare(repeat: int) -> None:
    """Measure the machine, predict, run, print."""
    import torch

    from imax_dist.pipeline.request import Request
    from imax_dist.planner.cluster import Cluster
    from imax_dist.planner.hardware import read_hardware
    from imax_dist.planner.measure import measure
    from imax_dist.planner.split import Split
    from imax_dist.planner.time import poster_time, step_time
    from imax_dist.planner.workload import workloads

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_flux import make_tiny_flux

    torch.set_num_threads(1)
    found = measure(torch.device("cpu"))
    print(
        "measured: "
        + json.dumps({key: found[key] for key in ("rates", "memory_bandwidth", "dispatch", "link")})
    )
    print(
        "| model | size | processes | step predicted, s | measured | off "
        "| render predicted, s | measured | off |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        wider = str(make_tiny_flux(Path(folder), settings=WIDER_SETTINGS, **WIDER))
        cases = [("embedded", "256x256"), ("embedded", "512x512"), (wider, "512x512")]
        for model, size in cases:
            (work,) = workloads([Request(PROMPT, size=size, model=model)], device="cpu")
            for processes in (1, 2):
                truth = run_fresh(model, size, processes=processes, repeat=repeat)
                hardware = read_hardware({**found, **with_widths(truth["kernels"])}, where="measured")
                here = Cluster(hardware, processes)
                guess = poster_time(work, Split(processes, 1), here)
                name = "embedded" if model == "embedded" else "FLUX shape, 8 x 64"
                cells = [f"{name} | {size} | {processes}"]
                both = [step_time(work, each, Split(processes, 1), here).total for each in work.extrapolated]
                for predicted, key in ((sum(both) / len(both), "step"), (guess.total, "render")):
                    off = predicted / truth[key] - 1
                    mark = "" if abs(off) <= ACCEPTED else " **missed**"
                    cells.append(f"{predicted:.3f} | {truth[key]:.3f} | {100 * off:+.0f} %{mark}")
                print(f"| {' | '.join(cells)} |", flush=True)


PUBLISHED = [
    *(("schnell", "4096x4096", "A100", n, s) for n, s in ((1, 79.03), (2, 39.48), (4, 20.1), (8, 10.63))),
    *(("schnell", "2048x2048", "A100", n, s) for n, s in ((1, 11.06), (2, 6.17), (4, 3.80), (8, 2.63))),
    *(("dev, 28 steps", "1024x1024", "H100", n, s) for n, s in ((1, 6.71),)),
    *(("dev, 28 steps, compiled", "1024x1024", "H100", n, s) for n, s in ((1, 4.30),)),
]
"""xDiT's figures and tables: FLUX.1, size, kind and number of GPUs, seconds an image with prompt and VAE."""


def predict_gpus() -> None:
    """Published points beside predictions, then strong scaling."""
    from imax_dist.models.blueprint import find_blueprint
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.choose import best_split
    from imax_dist.planner.cluster import Cluster, parse_cluster
    from imax_dist.planner.hardware import load_hardware
    from imax_dist.planner.split import Split
    from imax_dist.planner.time import poster_time, step_time
    from imax_dist.planner.workload import Workload, workload_of

    def work_of(model: str, size: str, preset: str, steps: int | None = None) -> Workload:
        request = Request(PROMPT, size=size, model=model, preset=preset, steps=steps)
        return workload_of(request, find_blueprint(model), device="gpu")

    print("| published (xDiT) | GPUs | s an image | predicted | off |\n|---|---|---|---|---|")
    for what, size, gpu, ranks, seconds in PUBLISHED:
        name = f"flux-{what.partition(',')[0]}"
        work = work_of(name, size, "direct", steps=28 if name == "flux-dev" else 4)
        guess = poster_time(work, Split(ranks, 1), Cluster(load_hardware(gpu), ranks)).total
        off = 100 * (guess / seconds - 1)
        print(f"| FLUX.1-{what}, {size} | {ranks} {gpu} | {seconds:.2f} | {guess:.2f} | {off:+.0f} % |")
    print(
        "\n| FLUX.1-dev | GPUs | split | step, s | efficiency of a step | poster, min |"
        "\n|---|---|---|---|---|---|"
    )
    for size in ("4096x4096", "8192x8192"):
        work = work_of("flux-dev", size, "imax")
        alone = step_time(work, work.extrapolated[-1], Split(), parse_cluster("8xH200")).total
        for text in ("1xH200", "8xH200", "2x8xH200", "8x8xH200"):
            cluster = parse_cluster(text)
            split = best_split(work, cluster.devices, cluster)
            if split is None:
                print(f"| {size} | {text} | - | does not fit | - | - |")
                continue
            step = step_time(work, work.extrapolated[-1], split, cluster).total
            share = 100 * alone / step / cluster.devices
            minutes = poster_time(work, split, cluster).total / 60
            print(f"| {size} | {text} | {split} | {step:.3g} | {share:.0f} % | {minutes:.2g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions of imax plan against runs.")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "WxH"), help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--gpus", action="store_true", help="predictions for GPUs only, nothing is run")
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
    elif options.gpus:
        predict_gpus()
    else:
        compare(options.repeat)


if __name__ == "__main__":
    main()
