"""`imax study ...`: look at scenes, train the embedded model, measure it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from imax_dist.errors import BadValue

Parser = argparse.ArgumentParser
Verb = Callable[[argparse.Namespace], int]


def add_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb `study` and its own verbs."""
    parser: Parser = subparsers.add_parser("study", help="the testbed: scenes, training, measurements")
    parser.set_defaults(run=run)
    verbs = parser.add_subparsers(dest="study_verb", required=True, metavar="WHAT")
    for name, (text, add, _) in VERBS.items():
        add(verbs.add_parser(name, help=text, description=text))


def run(args: argparse.Namespace) -> int:
    """Run the chosen verb; returns the exit code."""
    verb: Verb = VERBS[args.study_verb][2]
    return verb(args)


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` as (height, width). Raises BadValue if it is not of that form."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise BadValue(f"size {text!r} is not WIDTHxHEIGHT; write for example 512x512")
    return int(height), int(width)


def _scenes_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--n", type=int, default=12, help="how many scenes")
    parser.add_argument("--size", default="512x512", help="WIDTHxHEIGHT of each")
    parser.add_argument("--seed", type=int, default=0, help="first scene seed")


def _scenes(args: argparse.Namespace) -> int:
    from imax_dist.output.sheet import write_sheet
    from imax_dist.study.scenes import caption, render, sample_scene

    height, width = parse_size(args.size)
    scenes = [sample_scene(args.seed + k) for k in range(args.n)]
    write_sheet(args.out, [render(scene, height, width) for scene in scenes], columns=4)
    for scene in scenes:
        print(caption(scene))
    return 0


def _training_arguments(parser: Parser, *, steps: int) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and loss curve")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=steps, help=f"updates (default {steps})")
    length.add_argument("--minutes", type=float, default=0.0, help="train this long instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, help="samples an update")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")


def _given(args: argparse.Namespace, *names: str) -> dict[str, float | int]:
    """The named options that were given: the others keep the settings' defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _train_vae_arguments(parser: Parser) -> None:
    _training_arguments(parser, steps=4000)
    parser.add_argument("--pictures", type=int, default=3000, help="rendered pictures to cut crops from")


def _train_vae(args: argparse.Namespace) -> int:
    import torch

    from imax_dist.study.train.budget import Budget
    from imax_dist.study.train.crops import fill_bank
    from imax_dist.study.train.vae import VaeSettings, train_vae

    torch.set_num_threads(args.threads)
    settings = VaeSettings(**_given(args, "seed", "batch", "rate"))  # type: ignore[arg-type]
    bank = fill_bank(args.seed, scale=args.pictures / 3000)
    budget = Budget(steps=args.steps, seconds=60 * args.minutes)
    train_vae(args.out, bank, settings, budget=budget, device=args.device)
    return _told(args.out / "vae.jsonl")


def _encode_arguments(parser: Parser) -> None:
    parser.add_argument("--vae", type=Path, required=True, help="vae.safetensors of train-vae")
    parser.add_argument("--out", type=Path, required=True, help="folder of the encoded scenes")
    parser.add_argument("--size", action="append", help="WIDTHxHEIGHT, repeatable (default 128x128)")
    parser.add_argument("--n", type=int, default=12000, help="scenes of each size")
    parser.add_argument("--first", type=int, default=0, help="first scene seed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")


def _encode(args: argparse.Namespace) -> int:
    import torch

    from imax_dist.study.train.crops import held_out, to_unit
    from imax_dist.study.train.latents import encode_scenes
    from imax_dist.study.train.vae import load_vae

    torch.set_num_threads(args.threads)
    vae = load_vae(args.vae, to_unit(held_out(32, 128)))
    for size in args.size or ["128x128"]:
        for start in range(args.first, args.first + args.n, 2000):
            stop = min(start + 2000, args.first + args.n)
            path = encode_scenes(args.out, vae, range(start, stop), size=parse_size(size))
            print(path, file=sys.stderr)
    return 0


def _train_flow_arguments(parser: Parser) -> None:
    _training_arguments(parser, steps=6000)
    parser.add_argument("--data", type=Path, required=True, help="folder of encode-scenes")
    parser.add_argument("--single-size", action="store_true", help="native size only, for failure figures")


def _train_flow(args: argparse.Namespace) -> int:
    import torch

    from imax_dist.study.train.budget import Budget
    from imax_dist.study.train.flow import FlowSettings, train_flow
    from imax_dist.study.train.latents import load_buckets
    from imax_dist.study.train.text import build_tokenizers

    torch.set_num_threads(args.threads)
    tokenizers = build_tokenizers()
    values = _given(args, "seed", "batch", "rate") | ({"mixed": 0.0} if args.single_size else {})
    settings = FlowSettings(**values)  # type: ignore[arg-type]
    budget = Budget(steps=args.steps, seconds=60 * args.minutes)
    buckets = load_buckets(args.data, tokenizers)
    train_flow(args.out, buckets, tokenizers, settings=settings, budget=budget, device=args.device)
    return _told(args.out / "flow.jsonl")


def _distil_arguments(parser: Parser) -> None:
    _training_arguments(parser, steps=400)
    parser.add_argument("--data", type=Path, required=True, help="folder of encode-scenes")
    parser.add_argument("--flow", type=Path, required=True, help="flow.safetensors of train-flow")


def _distil(args: argparse.Namespace) -> int:
    import torch

    from imax_dist.study.train.budget import Budget
    from imax_dist.study.train.distil import distil_guidance
    from imax_dist.study.train.flow import FlowSettings, load_flow
    from imax_dist.study.train.latents import load_buckets
    from imax_dist.study.train.text import build_tokenizers

    torch.set_num_threads(args.threads)
    tokenizers = build_tokenizers()
    short = {"rate": 1e-3, "hold": 0.3, "ema": 0.99, "mixed": 0.3}  # a short run from good weights
    settings = FlowSettings(**(short | _given(args, "seed", "batch", "rate")))  # type: ignore[arg-type]
    budget = Budget(steps=args.steps, seconds=60 * args.minutes)
    teacher, buckets = load_flow(args.flow, tokenizers), load_buckets(args.data, tokenizers)
    distil_guidance(
        args.out, buckets, tokenizers, teacher=teacher, settings=settings, budget=budget, device=args.device
    )
    return _told(args.out / "distil.jsonl")


def _save_arguments(parser: Parser) -> None:
    parser.add_argument("--vae", type=Path, required=True, help="vae.safetensors of train-vae")
    parser.add_argument("--flow", type=Path, required=True, help="flow.safetensors or distil.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="FluxPipeline folder to write")


def _save(args: argparse.Namespace) -> int:
    from imax_dist.study.train.crops import held_out, to_unit
    from imax_dist.study.train.flow import load_flow
    from imax_dist.study.train.pipeline import assemble, save_pipeline
    from imax_dist.study.train.text import build_tokenizers
    from imax_dist.study.train.vae import load_vae

    tokenizers = build_tokenizers()
    vae = load_vae(args.vae, to_unit(held_out(32, 128)))
    pipeline = assemble(load_flow(args.flow, tokenizers), vae, tokenizers)
    print(json.dumps({"folder": str(args.out), "bytes": save_pipeline(pipeline, args.out)}))
    return 0


def _measure_arguments(parser: Parser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="FluxPipeline folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json and sheet.png")
    parser.add_argument("--n", type=int, default=48, help="held-out scenes")
    parser.add_argument("--size", default="128x128", help="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")


def _measure(args: argparse.Namespace) -> int:
    import torch

    from imax_dist.output.atomic import write_json
    from imax_dist.output.sheet import write_sheet
    from imax_dist.study.train.measure import measure_pipeline
    from imax_dist.study.train.sample import load_pipeline

    torch.set_num_threads(args.threads)
    results, pictures = measure_pipeline(
        load_pipeline(args.model),
        args.n,
        size=parse_size(args.size),
        steps=args.steps,
        guidance=args.guidance,
    )
    write_json(args.out / "results.json", results)
    write_sheet(args.out / "sheet.png", pictures[:24], columns=6)
    print(json.dumps(results, indent=2))
    return 0


def _told(journal: Path) -> int:
    """Print the last line of a loss curve."""
    print(journal.read_text(encoding="utf-8").splitlines()[-1])
    return 0


VERBS: dict[str, tuple[str, Callable[[Parser], None], Verb]] = {
    "scenes": ("draw a sheet of scenes and print their captions", _scenes_arguments, _scenes),
    "train-vae": ("train the autoencoder on crops of scenes", _train_vae_arguments, _train_vae),
    "encode-scenes": ("render scenes and encode them once", _encode_arguments, _encode),
    "train-flow": ("train transformer and text encoders", _train_flow_arguments, _train_flow),
    "distil": ("distil guidance into one pass", _distil_arguments, _distil),
    "save-pipeline": ("write the trained parts as a FluxPipeline", _save_arguments, _save),
    "measure": ("caption facts and autoencoder quality of a model", _measure_arguments, _measure),
}
