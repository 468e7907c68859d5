"""The options that describe one poster, shared by the verbs that take one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from imax_dist.config import set_key

if TYPE_CHECKING:
    from imax_dist.pipeline.ranks import ParallelSettings

REQUEST_FIELDS = (
    "size", "paper", "dpi", "bleed", "landscape",
    "seed", "model", "lora", "lora_partial", "preset", "guide", "steps", "native_steps", "dtype",
)  # fmt: skip
PARALLEL_FIELDS = ("ulysses", "ring", "engine", "kernel", "quality", "compile", "cfg", "text_encoders")


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Size, seed, model and method; the prompt is the verb's own."""
    parser.add_argument("--size", metavar="WxH", help="pixels, any size and shape (default: 2x native)")
    add_paper_options(parser)
    parser.add_argument("--seed", type=int, default=None, help="default 0")
    parser.add_argument("--model", help="name, folder in diffusers layout, or hub id (default: embedded)")
    parser.add_argument(
        "--lora", action="append", metavar="PATH[:WEIGHT]", help="a LoRA file; may be repeated"
    )
    parser.add_argument(
        "--lora-partial",
        action="store_true",
        default=None,
        help="merge what fits of a LoRA",
    )
    parser.add_argument("--preset", help="imax (default), paper, official, direct, ..., or a YAML file")
    parser.add_argument("--guide", metavar="FILE", help="a picture to guide by instead of the native pass")
    parser.add_argument("--steps", type=int, help="steps of the extrapolated pass")
    parser.add_argument("--native-steps", type=int, help="steps of the native pass")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or float64")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one switch of the preset, e.g. rope.rule=none; may be repeated",
    )


def add_paper_options(parser: argparse.ArgumentParser) -> None:
    """A sheet instead of pixels."""
    parser.add_argument("--paper", metavar="NAME", help="A2, arch-d, 24x36in, 50x70cm: fills in the size")
    parser.add_argument("--dpi", type=float, help="pixels per inch on the paper (default 200)")
    parser.add_argument("--bleed", metavar="LENGTH", help="picture beyond each edge of the paper, e.g. 3mm")
    parser.add_argument("--landscape", action="store_true", default=None, help="the paper lying")


def given_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Only what was said on the command line, as fields of a Request."""
    fields: dict[str, Any] = {}
    for name in REQUEST_FIELDS:
        value = getattr(options, name)
        if value is not None:
            fields[name] = tuple(value) if isinstance(value, list) else value
    method: dict[str, Any] = {}
    for assignment in options.set:
        set_key(method, assignment)
    if method:
        fields["method"] = method
    return fields


def add_parallel_options(parser: argparse.ArgumentParser) -> None:
    """How ranks share a poster; with one rank none of it matters."""
    parser.add_argument("--parallel", metavar="NAME", help="auto (default), ring, draft, or a YAML file")
    parser.add_argument("--ulysses", type=int, help="Ulysses degree (default: as many as the heads allow)")
    parser.add_argument("--ring", type=int, help="ring degree (default: the other ranks)")
    parser.add_argument(
        "--cfg", help="guidance: two_passes (default), batched, or split over two halves of the ranks"
    )
    parser.add_argument("--engine", help="auto (default), torch, xfuser or diffusers")
    parser.add_argument("--kernel", help="attention kernel (default: the fastest exact one, measured)")
    parser.add_argument("--quality", help="exact (default), or draft: lets fp8 and Sage kernels in")
    parser.add_argument("--compile", help="none (default), or regional: torch.compile, block by block")
    parser.add_argument("--text-encoders", help="device (default), or cpu to save its memory")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument(
        "--rank-timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="a silent rank is lost then (600)",
    )


def parallel_settings(options: argparse.Namespace) -> ParallelSettings:
    """The parallel settings named by the command line, with its own options laid over them."""
    from imax_dist.pipeline.ranks import load_parallel

    given = {name: getattr(options, name, None) for name in PARALLEL_FIELDS}
    return load_parallel(options.parallel, {key: value for key, value in given.items() if value is not None})
