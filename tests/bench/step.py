"""A step of ours against a bare diffusers transformer with the same weights and tokens, on one process.

``python -m tests.bench.step [--runs 7]`` prints a Markdown table. Runs of both alternate, the best of each
counts, so that other work on the machine weighs on both alike. Goal: a ratio of at most 1.02.
``--compiled``: our step instead, eager against compiled block by block.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from imax_dist.models.compiled import compile_blocks
from tests.bench.flux_shape import Shape, Step, make_model, seconds, use_bare, use_ours

SHAPE = Shape(2, 4, 8, 64, 64, 256, (16, 16, 32, 32))


def row(size: str, runs: int) -> str:
    model = make_model(SHAPE, torch.device("cpu"), torch.float32)
    step = Step.at(model, size)
    ours, bare = step.ours(), step.bare()
    best = {"ours": float("inf"), "bare": float("inf")}
    for _ in range(runs):
        use_bare(model)
        best["bare"] = min(best["bare"], seconds(bare, runs=1, warm_up=0))
        use_ours(model)
        best["ours"] = min(best["ours"], seconds(ours, runs=1, warm_up=0))
    tokens = sum(step.tokens)
    return (
        f"| {size} | {tokens} | {best['bare']:.3f} | {best['ours']:.3f} | {best['ours'] / best['bare']:.3f} |"
    )


def compiled_row(size: str, runs: int) -> str:
    model = make_model(SHAPE, torch.device("cpu"), torch.float32)
    step = Step.at(model, size)
    eager = seconds(step.ours(), runs=runs)
    compile_blocks(model)
    compiled = seconds(step.ours(), runs=runs)
    return f"| {size} | {sum(step.tokens)} | {eager:.3f} | {compiled:.3f} | {eager / compiled:.2f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One step of ours against a bare diffusers transformer.")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1024x1024"])
    parser.add_argument("--compiled", action="store_true", help="ours eager against ours compiled")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = (
        "eager, CPU s | compiled, CPU s | ratio" if options.compiled else "bare, CPU s | ours, CPU s | ratio"
    )
    print(f"| size | tokens | {columns} |\n|---|---|---|---|---|")
    for size in options.sizes:
        print((compiled_row if options.compiled else row)(size, options.runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
