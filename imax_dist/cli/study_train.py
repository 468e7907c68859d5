"""The commands of `imax study` that make the embedded model: encode, train, distil, save."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.cli.study_options import (
    budget_of,
    model_size,
    parse_share,
    print_last_line,
    require_counts,
    require_run,
    require_seeds,
    start_libraries,
)

if TYPE_CHECKING:
    from imax_dist.study.train.flow import FlowSettings

Parser = argparse.ArgumentParser
Verb = Callable[[argparse.Namespace], int]


def _training_arguments(parser: Parser, *, steps: int) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of checkpoint and loss curve")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=steps, help=f"updates (default {steps})")
    length.add_argument("--minutes", type=float, help="train this long instead")
    add("--seed", type=int, default=0, help="seed of weights and batches (default 0)")
    add("--batch", type=int, help="samples an update")
    add("--rate", type=float, help="peak learning rate")
    add("--device", default="cpu", metavar="KIND", help="cpu (default) or cuda")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")


def _given(args: argparse.Namespace, *names: str) -> dict[str, float | int]:
    """The named options that were given: the others keep the settings' defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _train_vae_arguments(parser: Parser) -> None:
    _training_arguments(parser, steps=4000)
    parser.add_argument(
        "--pictures", type=int, default=3000, help="rendered pictures to cut crops from (default 3000)"
    )


def _train_vae(args: argparse.Namespace) -> int:
    from imax_dist.study.train.crops import fill_bank
    from imax_dist.study.train.vae import VaeSettings, train_vae

    require_counts(args, "pictures")
    require_run(args)
    settings = VaeSettings(**_given(args, "seed", "batch", "rate"))  # type: ignore[arg-type]
    bank = fill_bank(args.seed, scale=args.pictures / 3000)
    train_vae(args.out, bank, settings, budget=budget_of(args), device=args.device)
    return print_last_line(args.out / "vae.jsonl")


def _encode_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--vae", required=True, metavar="FILE", help="vae.safetensors of train-vae, or a model")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the encoded scenes")
    add("--size", action="append", metavar="WxH", help="size in pixels, repeatable (default 256x256)")
    add("--n", type=int, default=12000, help="scenes of each size (default 12000)")
    add("--first", type=int, default=0, help="first scene seed (default 0)")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")


def _encode(args: argparse.Namespace) -> int:
    from imax_dist.output.atomic import require_writable
    from imax_dist.study.train.latents import encode_scenes
    from imax_dist.study.train.parts import vae_of

    sizes = [model_size(size) for size in args.size or ["256x256"]]
    require_counts(args, "n")
    require_seeds(args.first, args.n)
    start_libraries(args.threads)
    vae = vae_of(args.vae)
    require_writable(args.out)
    for size in sizes:
        for start in range(args.first, args.first + args.n, 2000):
            stop = min(start + 2000, args.first + args.n)
            path = encode_scenes(args.out, vae, range(start, stop), size=size)
            print(path, file=sys.stderr)
    return 0


def _flow_arguments(parser: Parser, *, steps: int) -> None:
    _training_arguments(parser, steps=steps)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="folder of encode-scenes")
    add("--hold", type=float, help="progress until which the rate stays at its peak")
    add("--native", default="256x256", metavar="WxH", help="size the model is made for (default 256x256)")
    add("--mixed", type=float, help="part of the updates that takes other sizes (default 0.4)")
    add("--share", action="append", default=[], metavar="SIZE=WEIGHT", help="weight of a size")
    add("--level-shift", type=float, help="(side / native)^this shifts larger sizes' noise (default 0)")
    add("--centre", type=float, help="centre of the logit-normal noise levels (default 0.1)")
    add("--tokenizers", metavar="MODEL", help="the model whose tokenizers a checkpoint was trained with")
    add("--single-size", action="store_true", help="native size only, for failure figures")


def _flow_settings(args: argparse.Namespace, **defaults: float) -> FlowSettings:
    """The settings of the options given, over ``defaults``."""
    from imax_dist.study.train.flow import FlowSettings

    given = _given(args, "seed", "batch", "rate", "mixed", "level_shift", "hold", "centre")
    values: dict[str, Any] = defaults | given | ({"mixed": 0.0} if args.single_size else {})
    shares = tuple(parse_share(share) for share in args.share)
    return FlowSettings(native=model_size(args.native), shares=shares, **values)


def _train_flow_arguments(parser: Parser) -> None:
    _flow_arguments(parser, steps=6000)
    parser.add_argument(
        "--from", dest="source", metavar="MODEL", help="start from the weights of a model or a checkpoint"
    )
    parser.add_argument(
        "--mixed-from", type=float, help="progress from which other sizes join (default 0.55)"
    )


def _train_flow(args: argparse.Namespace) -> int:
    from imax_dist.study.train.flow import train_flow
    from imax_dist.study.train.latents import load_buckets
    from imax_dist.study.train.parts import flow_of, tokenizers_of
    from imax_dist.study.train.text import build_tokenizers

    settings = _flow_settings(args, **_given(args, "mixed_from"))
    require_run(args)
    named = args.tokenizers or args.source
    tokenizers = tokenizers_of(named) if named else build_tokenizers()
    budget = budget_of(args)
    buckets = load_buckets(args.data, tokenizers)
    teacher = flow_of(args.source, tokenizers) if args.source else None
    train_flow(
        args.out, buckets, tokenizers, settings=settings, budget=budget, device=args.device, teacher=teacher
    )
    return print_last_line(args.out / "flow.jsonl")


def _student_arguments(parser: Parser, *, steps: int) -> None:
    _flow_arguments(parser, steps=steps)
    parser.add_argument(
        "--flow", required=True, metavar="FILE", help="the teacher: flow.safetensors, or a model"
    )


def _distil_arguments(parser: Parser) -> None:
    _student_arguments(parser, steps=400)


def _distil_steps_arguments(parser: Parser) -> None:
    _student_arguments(parser, steps=400)
    add = parser.add_argument
    add("--student-steps", type=int, default=4, help="steps the student takes (default 4)")
    add("--shift", type=float, default=1.6, help="time shift of those steps (default 1.6)")
    add("--guidance", type=float, default=2.5, help="guidance scale it learns (default 2.5)")


def _student_settings(args: argparse.Namespace) -> FlowSettings:
    """Settings of a short run from good weights."""
    return _flow_settings(args, rate=1e-3, hold=0.3, ema=0.99, mixed=0.3)


def _distil(args: argparse.Namespace) -> int:
    from imax_dist.study.train.distil import distil_guidance

    return _taught(args, distil_guidance, journal="distil.jsonl")


def _distil_steps(args: argparse.Namespace) -> int:
    from functools import partial

    from imax_dist.study.train.few_steps import Windows, distil_steps

    require_counts(args, "student_steps")
    windows = Windows(args.student_steps, args.shift, scale=args.guidance)
    return _taught(args, partial(distil_steps, windows=windows), journal="few-steps.jsonl")


def _taught(args: argparse.Namespace, teach: Callable[..., Any], *, journal: str) -> int:
    """Run a distillation and print the end of its loss curve."""
    from imax_dist.study.train.latents import load_buckets
    from imax_dist.study.train.parts import flow_of, tokenizers_of

    settings = _student_settings(args)
    require_run(args)
    tokenizers = tokenizers_of(args.tokenizers or args.flow)
    teach(
        args.out, load_buckets(args.data, tokenizers), tokenizers,
        teacher=flow_of(args.flow, tokenizers), settings=settings, budget=budget_of(args),
        device=args.device,
    )  # fmt: skip
    return print_last_line(args.out / journal)


def _save_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--vae", required=True, metavar="FILE", help="vae.safetensors of train-vae, or a model")
    add("--flow", required=True, metavar="FILE", help="a checkpoint of train-flow, distil or distil-steps")
    add("--tokenizers", metavar="MODEL", help="the teacher's name, if it was a model")
    add("--native", default="256x256", metavar="WxH", help="size the model is made for (default 256x256)")
    add("--out", type=Path, required=True, metavar="DIR", help="FluxPipeline folder to write")


def _save(args: argparse.Namespace) -> int:
    from imax_dist.study.train.parts import flow_of, tokenizers_of, vae_of
    from imax_dist.study.train.pipeline import assemble, save_pipeline

    height, width = model_size(args.native)
    start_libraries(1)
    tokenizers = tokenizers_of(args.tokenizers or args.flow)
    pipeline = assemble(
        flow_of(args.flow, tokenizers), vae_of(args.vae), tokenizers, native_tokens=height * width // 256
    )
    size = save_pipeline(pipeline, args.out, native_side=math.isqrt(height * width))
    print(json.dumps({"folder": str(args.out), "bytes": size}))
    return 0


TRAINING_VERBS: dict[str, tuple[str, Callable[[Parser], None], Verb]] = {
    "train-vae": ("train the autoencoder on crops of scenes", _train_vae_arguments, _train_vae),
    "encode-scenes": ("render scenes and encode them once", _encode_arguments, _encode),
    "train-flow": ("train transformer and text encoders", _train_flow_arguments, _train_flow),
    "distil": ("distil guidance into one pass", _distil_arguments, _distil),
    "distil-steps": ("distil a model into a few steps", _distil_steps_arguments, _distil_steps),
    "save-pipeline": ("write the trained parts as a FluxPipeline", _save_arguments, _save),
}
