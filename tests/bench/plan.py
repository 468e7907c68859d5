"""The planner against the clock: predicted and measured steps and renders on this CPU, 1 and 2 processes.

Everything is in CPU seconds of one rank, since other work on a machine lengthens a wall clock. Each case runs
in fresh processes; the first rank measures its rates (as ``imax doctor --measure`` does) before and after its
render, their mean predicts, their drift is printed. A step is the median of the last pass. ``--gpus`` prints
predictions only: published points and strong scaling of FLUX.1-dev to 8, 16 and 64 GPUs.

    python -m tests.bench.plan [--repeat 1] [--only TEXT] [--gpus]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
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
WIDTH_OF_DRIFT = 512
"""Of the matrix product whose rate, before and after a render, tells how much the machine itself changed."""


def worker(model_name: str, size: str, preset: str) -> None:
    """One rank; rank 0 prints its median step of the last pass and the whole render, in CPU seconds."""
    import torch

    from imax_dist.calibrate.measure import measure_kernels
    from imax_dist.events import RenderEvent, StepDone
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.models.load import load_model
    from imax_dist.parallel.topology import detect, process_group
    from imax_dist.pipeline.ranks import ParallelSettings, join_ranks
    from imax_dist.pipeline.render import render_with
    from imax_dist.pipeline.request import Request

    torch.set_num_threads(1)
    quiet_libraries()
    marks: list[float] = []

    def listen(event: RenderEvent) -> None:
        if isinstance(event, StepDone) and event.stage == "extrapolated":
            marks.append(time.process_time())

    topology = detect(device="cpu")
    with process_group(topology):
        model = load_model(model_name, device=topology.device)
        ranks = join_ranks(ParallelSettings(), topology, heads=model.spec.heads)
        render_with(
            model,
            ranks,
            Request(PROMPT, size=size, seed=2, model=model_name, preset=preset, steps=1, native_steps=1),
        )
        rates = [measure_kernels(topology.device)] if topology.is_first else []
        started = time.process_time()
        request = Request(PROMPT, size=size, seed=3, model=model_name, preset=preset)
        render_with(model, ranks, request, listen=listen)
        total = time.process_time() - started
        steps = [after - before for before, after in itertools.pairwise(marks)]
        if topology.is_first:
            rates.append(measure_kernels(topology.device))
            pairs = [(a + b) / 2 for a, b in itertools.pairwise(steps)]  # a plain and a shifted step
            print(json.dumps({"step": statistics.median(pairs), "render": total, "kernels": rates}))


def run_fresh(model: str, size: str, preset: str, *, processes: int) -> dict[str, Any]:
    """What rank 0 of fresh processes reports."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["tests.bench.plan", "--worker", model, size, preset]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    before, after = (with_numbers(each) for each in found["kernels"])
    linear = [number(each["rates"]["float32"]["linear"][WIDTH_OF_DRIFT]) for each in (before, after)]
    return {**found, "kernels": mean(before, after), "drift": linear[1] / linear[0] - 1}


def number(text: str) -> float:
    """``77.3 GFLOP/s`` without its unit."""
    return float(text.split()[0])


def mean(before: Any, after: Any) -> Any:
    """Of two measurements, number by number."""
    if isinstance(before, dict):
        return {key: mean(each, after[key]) for key, each in before.items()}
    return f"{(number(before) + number(after)) / 2:.6g} {before.split()[1]}"


def with_numbers(value: Any) -> Any:
    """JSON's text keys of the curves as whole numbers again."""
    if not isinstance(value, dict):
        return value
    return {int(key) if key.isdigit() else key: with_numbers(each) for key, each in value.items()}


CASES = [
    ("embedded", "256x256", "imax", (1, 2)),
    ("embedded", "384x256", "imax", (1,)),
    ("embedded", "256x256", "paper", (1,)),
    ("embedded", "512x512", "imax", (1, 2)),
    ("embedded", "512x320", "direct", (1,)),
    ("FLUX shape, 8 x 64", "512x512", "imax", (1, 2)),
]


def compare(repeat: int, only: str) -> None:
    """Measure the machine, run, predict from what each run measured, print."""
    import torch

    from imax_dist.calibrate.measure import measure_link
    from imax_dist.models.find import EMBEDDED

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_flux import make_tiny_flux

    torch.set_num_threads(1)
    bandwidth, latency = measure_link("gloo", clock=time.process_time)
    link = {"kind": "gloo", "bandwidth": f"{bandwidth / 1e9:.4g} GB/s", "latency": f"{latency * 1e6:.4g} us"}
    print(f"link between two processes, CPU seconds of one: {link['bandwidth']}, {link['latency']}")
    print(
        "| model | size | preset | processes | step predicted, s | measured | off "
        "| render predicted, s | measured | off | drift of the rates |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        wider = str(make_tiny_flux(Path(folder), settings=WIDER_SETTINGS, **WIDER))
        shutil.copytree(EMBEDDED / "vae", Path(folder) / "vae", dirs_exist_ok=True)  # no narrow one here
        for name, size, preset, counts in CASES:
            for processes in counts:
                label = f"{name} | {size} | {preset} | {processes}"
                if only in label:
                    for _ in range(repeat):
                        model = name if name == "embedded" else wider
                        print(
                            f"| {label} | {row(model, size, preset, processes=processes, link=link)} |",
                            flush=True,
                        )


def row(model: str, size: str, preset: str, *, processes: int, link: dict[str, str]) -> str:
    """Run one case and predict it from the rates that its own processes measured."""
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.cluster import Cluster
    from imax_dist.planner.hardware import read_hardware
    from imax_dist.planner.poster import poster_time
    from imax_dist.planner.split import Split
    from imax_dist.planner.time import step_time
    from imax_dist.planner.workload import workloads

    truth = run_fresh(model, size, preset, processes=processes)
    print(f"{processes} x {model} {size} {preset}: {json.dumps(truth)}", file=sys.stderr)
    rest = dict(name="here", kind="cpu", memory="24 GB", reserve="500 MiB", source="measured by each case")
    hardware = read_hardware({**rest, **truth["kernels"], "link": link, "network": link}, where="measured")
    here, split = Cluster(hardware, processes), Split(processes, 1)
    (work,) = workloads([Request(PROMPT, size=size, model=model, preset=preset)], device="cpu")
    steps = [step_time(work, each, split, here).total for each in work.extrapolated or work.native]
    guesses = {"step": sum(steps) / len(steps), "render": poster_time(work, split, here).total}
    cells = []
    for key, predicted in guesses.items():
        off = predicted / truth[key] - 1
        mark = "" if abs(off) <= ACCEPTED else " **missed**"
        cells.append(f"{predicted:.3f} | {truth[key]:.3f} | {100 * off:+.0f} %{mark}")
    return " | ".join([*cells, f"{100 * truth['drift']:+.0f} %"])


WAYS = {
    "rank 0": {},
    "shared": {"native_by": "shared"},
    "ahead": {"posters": 64},
    "ahead, compiled": {"posters": 64, "compiled": True},
}
"""Who makes the native picture, and whether blocks are compiled."""


def predict_gpus() -> None:
    """Published points beside predictions, then strong scaling: what of the ranks' time a poster uses."""
    from imax_dist.models.blueprint import find_blueprint
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.cluster import parse_cluster
    from imax_dist.planner.estimate import best_split
    from imax_dist.planner.hardware import load_hardware
    from imax_dist.planner.poster import poster_time
    from imax_dist.planner.split import Split
    from imax_dist.planner.workload import workload_of
    from tests.bench.published import table

    print("\n".join(table()))
    print(
        "\n| FLUX.1-dev | GPUs | split | native by | step, s | of it | poster, s | of it | lost, % |"
        "\n|---|---|---|---|---|---|---|---|---|"
    )
    measured = load_hardware("H100-measured")
    for size in ("4096x4096", "8192x8192"):
        request = Request(PROMPT, size=size, model="flux-dev")
        work = workload_of(request, find_blueprint("flux-dev"), device="gpu")
        for text in ("1xH100", "8xH100", "2x8xH100", "8x8xH100"):
            cluster = parse_cluster(text, measured)
            split = best_split(work, cluster.devices, cluster)
            for name, changes in WAYS.items() if split is not None else ():
                own = dict(changes)
                posters = int(own.pop("posters", 1))
                way = replace(work, **own)
                alone = poster_time(way, Split(), cluster)
                poster = poster_time(way, split, cluster, posters=posters)
                step, whole = (
                    100 * one / each / split.ranks
                    for one, each in ((alone.step.total, poster.step.total), (alone.total, poster.total))
                )
                lost = poster.lost(alone, split.ranks)
                told = ", ".join(
                    f"{stage} {100 * share:.1f}" for stage, share in lost.items() if share > 0.0005
                )
                print(
                    f"| {size} | {text} | {split} | {name} | {poster.step.total:.3g} | {step:.0f} % "
                    f"| {poster.total:.1f} | {whole:.0f} % | {told} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions of imax plan against runs.")
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "WxH", "PRESET"), help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=1, help="rows of each case")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help='cases whose row holds it: "512x512 | imax | 2"'
    )
    parser.add_argument("--gpus", action="store_true", help="predictions for GPUs only, nothing is run")
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
    elif options.gpus:
        predict_gpus()
    else:
        compare(options.repeat, options.only)


if __name__ == "__main__":
    main()
