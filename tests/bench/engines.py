"""The engines side by side on two gloo ranks: CPU seconds and bytes of one attention layer.

``python -m tests.bench.engines`` prints a Markdown table. xfuser runs through the tests' shim.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from imax_dist.parallel.engines.registry import ENGINES
from imax_dist.parallel.mesh import build_mesh
from imax_dist.parallel.sequence import JointLayout
from imax_dist.parallel.topology import Topology
from tests.ranks import run_ranks
from tests.traffic import Traffic
from tests.xfuser_on_cpu import answer_for_cpu, xfuser_is_installed

HEADS, HEAD_DIM, TEXT = 8, 64, 512


def layers(topology: Topology, names: list[str], image: int, runs: int) -> dict[str, tuple[float, int]]:
    """Engine and mesh -> (CPU seconds, bytes sent) of a layer on this rank, the runs taken in turn."""
    if "xfuser" in names:
        answer_for_cpu()
    found: dict[str, tuple[float, int]] = {}
    layout = JointLayout.of(text_tokens=TEXT, image_tokens=image, ranks=2)
    qkv = [torch.randn(1, layout.joint[topology.rank], HEADS, HEAD_DIM) for _ in range(3)]
    for degrees in ((2, 1), (1, 2)):
        mesh = build_mesh(topology, ulysses=degrees[0], ring=degrees[1])
        engines = {name: ENGINES[name](mesh) for name in names}
        for run in range(runs + 1):
            for name, engine in engines.items():
                key = f"{name} | u{degrees[0]} r{degrees[1]}"
                started = time.process_time()
                engine(*qkv, layout=layout)
                took = time.process_time() - started
                if run:
                    found[key] = (min(took, found[key][0]), found[key][1])
                    continue
                with Traffic() as traffic:
                    traffic.by_layer(engine)(*qkv, layout=layout)
                found[key] = (float("inf"), traffic.layer_bytes()[0])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One attention layer on two ranks, engine by engine.")
    parser.add_argument("--image", type=int, default=4097, help="image tokens; odd ones are padded by two")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    names = [name for name in ENGINES if name != "xfuser" or xfuser_is_installed()]
    results = run_ranks(2, layers, names, options.image, options.runs, timeout_s=280)
    print("| engine | mesh | CPU s a layer and rank | MB sent by rank 0 |\n|---|---|---|---|")
    for key, (_, sent) in results[0].items():
        slowest = max(result[key][0] for result in results)
        print(f"| {key} | {slowest:.3f} | {sent / 1e6:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
