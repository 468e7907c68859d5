"""The commands of `imax study` that measure trained weights: their pictures, their loss."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from imax_dist.cli.study_options import model_size, require_counts, start_libraries
from imax_dist.errors import BadValue

Parser = argparse.ArgumentParser
Verb = Callable[[argparse.Namespace], int]


def _measure_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="FluxPipeline folder")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of results.json and sheet.png")
    add("--n", type=int, default=48, help="held-out scenes (default 48)")
    add("--size", default="256x256", metavar="WxH", help="size in pixels (default 256x256)")
    add("--steps", type=int, default=24, help="sampling steps (default 24)")
    add("--guidance", type=float, default=2.5, help="guidance scale (default 2.5)")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")


def _measure(args: argparse.Namespace) -> int:
    from imax_dist.output.atomic import require_writable, write_json
    from imax_dist.output.image.sheet import write_sheet

    size = model_size(args.size)
    require_counts(args, "n", "steps")
    start_libraries(args.threads)
    from imax_dist.study.train.measure import measure_pipeline
    from imax_dist.study.train.sample import load_pipeline

    pipeline = load_pipeline(args.model)
    require_writable(args.out)
    results, pictures = measure_pipeline(
        pipeline, args.n, size=size, steps=args.steps, guidance=args.guidance
    )
    write_json(args.out / "results.json", results)
    write_sheet(args.out / "sheet.png", pictures[:24], columns=6)
    print(json.dumps(results, indent=2))
    return 0


def _loss_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("weights", nargs="+", metavar="WEIGHTS", help="checkpoints of train-flow or models, earliest first")
    add("--at", nargs="+", type=float, metavar="N", help="thousand samples each has seen (default 1 2 3 ...)")
    add("--tokenizers", default="embedded", metavar="MODEL", help="a checkpoint's (default embedded)")
    add("--vae", default="embedded", metavar="FILE", help="vae.safetensors, or a model (default embedded)")
    add("--size", action="append", metavar="WxH", help="size in pixels, repeatable (default 256x256)")
    add("--n", type=int, default=48, help="held-out scenes of each size (default 48)")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of loss.json and loss.png")


def _loss(args: argparse.Namespace) -> int:
    from imax_dist.output.atomic import require_writable, write_json
    from imax_dist.study.train.held_out_loss import LEVELS, draw_losses, held_out_loss, held_out_scenes
    from imax_dist.study.train.parts import flow_of, tokenizers_of, vae_of

    at = args.at or [float(k + 1) for k in range(len(args.weights))]
    if len(at) != len(args.weights):
        raise BadValue(f"--at has {len(at)} numbers for {len(args.weights)} weights; give one for each")
    sizes = [model_size(size) for size in args.size or ["256x256"]]
    require_counts(args, "n")
    start_libraries(args.threads)
    vae, tokenizers = vae_of(args.vae), tokenizers_of(args.tokenizers)
    networks = [flow_of(source, tokenizers) for source in args.weights]
    require_writable(args.out)
    found = {}
    for size in sizes:
        scenes = held_out_scenes(vae, tokenizers, args.n, size=size)
        found[size] = [held_out_loss(network, scenes) for network in networks]
        for source, loss in zip(args.weights, found[size], strict=True):
            print(f"{size[1]}x{size[0]}  {loss.mean:.4f} [{loss.low:.4f}, {loss.high:.4f}]  {source}")
    how = {"n": args.n, "levels": LEVELS, "weights": args.weights, "at": at}
    losses = {f"{size[1]}x{size[0]}": [asdict(loss) for loss in row] for size, row in found.items()}
    write_json(args.out / "loss.json", {"how": how, "losses": losses})
    draw_losses(args.out / "loss.png", at, found)
    return 0


MEASURING_VERBS: dict[str, tuple[str, Callable[[Parser], None], Verb]] = {
    "measure": ("caption facts and autoencoder quality of a model", _measure_arguments, _measure),
    "loss": ("velocity loss of checkpoints on held-out scenes", _loss_arguments, _loss),
}
