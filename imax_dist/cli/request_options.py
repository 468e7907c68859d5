"""The options that describe one poster, shared by the commands that take one."""

from __future__ import annotations

import argparse
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.config import set_key

if TYPE_CHECKING:
    from imax_dist.parallel.topology import Topology
    from imax_dist.pipeline.ranks import ParallelSettings
    from imax_dist.pipeline.request import Request

REQUEST_FIELDS = (
    "size", "paper", "dpi", "bleed", "landscape",
    "seed", "model", "lora", "lora_partial", "preset", "guide", "scale", "fit", "background",
    "strength", "resemblance", "region", "edit",
    "steps", "native_steps", "dtype",
)  # fmt: skip
PARALLEL_FIELDS = ("ulysses", "ring", "engine", "kernel", "quality", "compile", "cfg", "text_encoders")
Options = argparse._ArgumentGroup | argparse.ArgumentParser


def add_poster_options(group: Options, *, size: str = "2x native") -> None:
    """What a poster is: ``size`` is what it has by default; prompt and picture are the command's own."""
    about = f"pixels, any size and shape (default: {size})"
    group.add_argument("--size", metavar="WxH", help=about)
    add_paper_options(group)
    add_model_options(group)


def add_model_options(group: Options) -> None:
    """Who paints it, and from which noise."""
    add = group.add_argument
    add("--model", metavar="MODEL", help="name, folder, file or hub id (imax list models)")
    add("--preset", metavar="NAME", help="a name (imax list presets) or a file; default imax")
    add("--seed", type=int, metavar="N", help="another seed, another picture (default 0)")


def add_part_options(group: Options) -> None:
    """What goes with a model in one file."""
    add = group.add_argument
    add("--vae", metavar="FILE", help="with a model in one file: its VAE, a file or folder")
    about = "with a model in one file: a text encoder, or a folder of them and tokenizers; repeatable"
    add("--encoder", action="append", default=[], metavar="FILE", help=about)


def add_guide_options(group: Options) -> None:
    """A picture of the user's beside a prompt."""
    add = group.add_argument
    add("--guide", metavar="FILE", help="start from this picture, not from a native one")
    about = "the prompt says what to change in it; for an editor (flux-kontext)"
    add("--edit", action="store_true", default=None, help=about)


def add_picture_options(group: Options, *, strength: str = "the preset's") -> None:
    """How a picture of the user's becomes a poster; ``strength`` is what holds by default."""
    add_sliders(group, strength=strength, resemblance="the preset's")
    add = group.add_argument
    add("--scale", type=float, metavar="N", help="poster's sides: this many times the picture's")
    add("--fit", metavar="HOW", help="to another shape: crop (default), pad or exact")
    add("--background", metavar="#RRGGBB", help="of padding and transparent parts (default white)")


def add_sliders(group: Options, *, strength: str, resemblance: str) -> None:
    """How much of a picture is kept, and what holds by default."""
    add = group.add_argument
    about = f"how much may change, 0 to 1 (default: {strength})"
    add("--strength", type=float, metavar="S", help=about)
    about = f"how firmly layout is kept, 0 to 1 (default: {resemblance})"
    add("--resemblance", type=float, metavar="R", help=about)


def add_method_options(group: Options) -> None:
    """Single switches of the method and the model."""
    add = group.add_argument
    add(
        "--steps",
        type=int,
        metavar="N",
        help="steps of a whole pass beyond native size (default: the preset's or the model's)",
    )
    add("--native-steps", type=int, metavar="N", help="steps of the native pass (default: the model's)")
    add("--lora", action="append", metavar="PATH[:WEIGHT]", help="LoRA file to merge; repeatable")
    add("--lora-partial", action="store_true", default=None, help="merge what fits of a LoRA")
    add_part_options(group)
    add("--dtype", metavar="TYPE", help="float32, bfloat16, float16 or float64")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="switch of the preset: rope.rule=none; repeatable",
    )


def add_out_option(group: Options, default: Path | None = None) -> None:
    """Where the poster goes; without a ``default`` its name is made from that of the picture."""
    name = "PICTURE-large.png" if default is None else str(default)
    about = f"png, tif, jpg or pdf (default: {name})"
    group.add_argument("-o", "--out", type=Path, default=default, metavar="FILE", help=about)


def add_count_option(group: Options) -> None:
    """Several posters that differ in their seed."""
    group.add_argument("--count", type=int, metavar="N", help="render N posters, with seeds from --seed on")


def add_several_options(group: Options) -> None:
    """Which seeds, or proofs of a grid."""
    group.add_argument("--seeds", metavar="LIST", help="seeds to render: 3,7,10-12; --out may hold {seed}")
    group.add_argument(
        "--grid", nargs="+", metavar="NAME=VALUES", help="a sheet of proofs: seed=1..8 strength=.3,.6"
    )


def add_recipe_options(group: Options) -> None:
    """A poster described by a file."""
    add = group.add_argument
    add("--recipe", type=Path, metavar="FILE", help="render again: a recipe, or a finished poster")
    add("--trust-recipe", action="store_true", help="let a recipe name files and hub ids")


def add_paper_options(group: Options) -> None:
    """A sheet instead of pixels."""
    add = group.add_argument
    add("--paper", metavar="NAME", help="sheet instead of pixels: A2, arch-d, 50x70cm")
    add("--dpi", type=float, metavar="DPI", help="pixels per inch on the paper (default 200)")
    add("--bleed", metavar="LENGTH", help="picture beyond the trim on each edge: 3mm")
    add("--landscape", action="store_true", default=None, help="landscape orientation of the paper")


def given_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Only what the command line says, as fields of a Request."""
    fields: dict[str, Any] = {}
    for name in REQUEST_FIELDS:
        value = getattr(options, name, None)
        if value is not None:
            fields[name] = tuple(value) if isinstance(value, list) else value
    method: dict[str, Any] = {}
    for assignment in options.set:
        set_key(method, assignment)
    if method:
        fields["method"] = method
    return fields


def given_poster(options: argparse.Namespace) -> dict[str, Any]:
    """The same, and a file for the model that ``--vae`` and ``--encoder`` put together."""
    from imax_dist.models.files.assembled import named_parts

    given = given_fields(options)
    if not (options.vae or options.encoder):
        return given
    model = given.get("model", "embedded")
    return {**given, "model": named_parts(model, vae=options.vae, text_encoders=options.encoder)}


def say_renamed(presets: Iterable[str]) -> None:
    """One line on stderr for each preset that goes by an old name."""
    from imax_dist.pipeline.switches import renamed

    for sentence in filter(None, map(renamed, sorted(set(presets)))):
        print(sentence, file=sys.stderr)


def add_parallel_options(group: Options) -> None:
    """How ranks share a poster; with one rank none of it matters."""
    add = group.add_argument
    add("--parallel", metavar="NAME", help="auto (default), ring, draft, or a YAML file")
    add("--ulysses", type=int, metavar="N", help="Ulysses degree (default: as the heads allow)")
    add("--ring", type=int, metavar="N", help="ring degree (default: the other ranks)")
    add("--cfg", metavar="HOW", help="guidance: two_passes (default), batched or split")
    add("--engine", metavar="NAME", help="auto (default), torch, xfuser, diffusers; window for drafts")
    add("--kernel", metavar="NAME", help="attention kernel (default: the fastest exact one)")
    add("--quality", metavar="LEVEL", help="exact (default); draft allows fp8 and Sage kernels")
    add(
        "--compile", metavar="HOW", help="none (default); regional: torch.compile, by block; auto: if it pays"
    )
    add("--text-encoders", metavar="WHERE", help="device (default), or cpu to save its memory")
    add("--device", metavar="KIND", default="auto", help="auto (default), cpu or cuda")
    add(
        "--rank-timeout",
        type=float,
        default=3600.0,
        metavar="S",
        help="longest wait for another rank (default 3600)",
    )


def filled_settings(
    options: argparse.Namespace, topology: Topology, requests: Sequence[Request]
) -> ParallelSettings:
    """The same with what they leave to the planner decided by rank 0 for the ranks that were started.

    Every rank must call this: another one may have other files, or fewer ranks beside it.
    """
    from imax_dist.parallel.broadcast import from_first_rank
    from imax_dist.parallel.devices import gather_texts
    from imax_dist.planner.fill_auto import fill_auto

    parallel = parallel_settings(options)
    if topology.world_size == 1:
        return parallel
    on_hosts = Counter(gather_texts(socket.gethostname(), topology))

    def decide() -> dict[str, Any]:
        per_host = max(on_hosts.values())
        found = fill_auto(parallel, requests, gpu=topology.gpu, per_host=per_host, hosts=len(on_hosts))
        return {name: getattr(found, name) for name in ("native", "compile", "least_link_gb_s")}

    return replace(parallel, **from_first_rank(decide, topology))


def parallel_settings(options: argparse.Namespace) -> ParallelSettings:
    """The parallel settings named by the command line, with its own options laid over them."""
    from imax_dist.pipeline.ranks import load_parallel

    given = {name: getattr(options, name, None) for name in PARALLEL_FIELDS}
    return load_parallel(options.parallel, {key: value for key, value in given.items() if value is not None})
