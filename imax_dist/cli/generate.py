"""``imax generate``: one poster; ``torchrun -m imax_dist generate`` renders the same one on many ranks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.cli.progress import ProgressBars
from imax_dist.cli.request_options import (
    add_parallel_options,
    add_request_options,
    given_fields,
    parallel_settings,
)
from imax_dist.cli.stop_signal import StopSignal
from imax_dist.config import from_mapping, to_mapping
from imax_dist.errors import BadValue
from imax_dist.events import ignore
from imax_dist.pipeline.memory import peak_memory

if TYPE_CHECKING:
    from torch import Tensor

    from imax_dist.pipeline.plan import PosterPlan
    from imax_dist.pipeline.render import Rendering
    from imax_dist.pipeline.request import Request


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "generate", help="render one poster", description="Render one poster from a prompt."
    )
    parser.add_argument("prompt", nargs="?", help="what the poster shows")
    parser.add_argument("--out", type=Path, default=Path("poster.png"), help="png, tif (16 bits), jpg or pdf")
    add_request_options(parser)
    parser.add_argument("--recipe", type=Path, help="render a recipe (JSON, or any file made here) again")
    parser.add_argument("--keep-native", action="store_true", help="the native picture, too")
    add_parallel_options(parser)
    parser.add_argument("--resume", choices=("auto", "never", "must"), default="auto")
    parser.add_argument("--checkpoint-every", type=int, default=5, metavar="STEPS", help="0: never")
    parser.add_argument("--json", action="store_true", help="result as JSON on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="sigma list and every step")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("--debug", action="store_true", help="tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Render and write; all ranks come here, rank 0 writes."""
    from imax_dist.cli.out_of_memory import reported_out_of_memory
    from imax_dist.launcher.rank_failure import lost_ranks_told
    from imax_dist.models.quiet import quiet_libraries
    from imax_dist.parallel.topology import detect, process_group

    recipe = _read_recipe(options.recipe)
    request = requested(options, recipe)
    topology = detect(device=options.device)
    quiet_libraries()
    stop = StopSignal(quiet=not topology.is_first)
    timeout = options.rank_timeout
    with (
        lost_ranks_told(timeout),
        process_group(topology, timeout_s=timeout),
        reported_out_of_memory(request, topology),
    ):
        bars = ProgressBars(quiet=options.quiet or not topology.is_first, verbose=options.verbose)
        try:
            rendering = _render(options, request, topology, bars=bars, stop=stop)
        finally:
            bars.close()
        if rendering.picture is not None:
            _finish(options, rendering, recipe, bars)
    return 0


def _render(
    options: argparse.Namespace, request: Request, topology: Any, *, bars: ProgressBars, stop: StopSignal
) -> Rendering:
    from imax_dist.parallel.broadcast import from_first_rank
    from imax_dist.pipeline.checkpoint import CheckpointFolder
    from imax_dist.pipeline.render import render

    from_first_rank(lambda: _check_output(options.out, request), topology)
    parallel = parallel_settings(options)
    folder = checkpoint_folder(options.out)
    checkpoints = CheckpointFolder(folder, every=options.checkpoint_every, resume=options.resume)
    listen = bars if topology.is_first else ignore
    return render(
        request,
        topology=topology,
        parallel=parallel,
        checkpoints=checkpoints,
        listen=listen,
        stop=stop,
        show_native=native_writer(options.out) if options.keep_native else None,
    )


def native_writer(out: Path) -> Callable[[Tensor], None]:
    """Writes the native picture beside the poster: ``sea.png`` has ``sea.native.png``."""
    from imax_dist.output.image.poster import write_native

    return lambda pixels: write_native(out.with_suffix(".native.png"), pixels)


def checkpoint_folder(out: Path) -> Path:
    """``sea.png`` keeps its checkpoints in ``sea.checkpoints`` until it is done."""
    return out.with_suffix(".checkpoints")


def _finish(
    options: argparse.Namespace, rendering: Rendering, recipe: dict[str, Any] | None, bars: ProgressBars
) -> None:
    from imax_dist.output.image.poster import write_poster
    from imax_dist.pipeline.checkpoint import CheckpointFolder

    assert rendering.picture is not None
    complete = write_poster(options.out, rendering.picture.bands(), rendering.recipe)
    CheckpointFolder(checkpoint_folder(options.out)).remove()
    result = {
        "out": str(options.out),
        "size": str(rendering.plan.size),
        "native_size": str(rendering.plan.native_size),
        "pixels_sha256": complete["pixels_sha256"],
        "seconds": {**bars.seconds, "total": bars.total_seconds},
        "peak_memory_gib": peak_memory(),
        **_compare(recipe, complete),
    }
    if options.verbose:
        _print_sigmas(rendering.plan)
    if options.json:
        print(json.dumps(result))
    else:
        _print_result(options, rendering, result)


def _compare(recipe: dict[str, Any] | None, complete: dict[str, Any]) -> dict[str, Any]:
    """With --recipe: whether the bits are those of the recipe, and what around the render differs."""
    from imax_dist.pipeline.recipe import differences

    if recipe is None or "pixels_sha256" not in recipe:
        return {}
    return {
        "same_bits": recipe["pixels_sha256"] == complete["pixels_sha256"],
        "differences": differences(recipe, complete),
    }


def _print_result(options: argparse.Namespace, rendering: Rendering, result: dict[str, Any]) -> None:
    plan, peaks = rendering.plan, result["peak_memory_gib"]
    memory = ", ".join(f"{amount:.1f} GiB {kind}" for kind, amount in peaks.items())
    scale = f"{plan.last.scale.linear:.3g}x native {plan.native_size}" if plan.extrapolates else "native"
    print(f"{options.out}  {plan.size} ({scale})  {result['seconds']['total']:.1f} s, peak {memory}")
    if "same_bits" in result:
        print("same bits as the recipe" if result["same_bits"] else "NOT the bits of the recipe")
        for difference in result["differences"]:
            print(f"  {difference}")


def _print_sigmas(plan: PosterPlan) -> None:
    """On stderr, as all that is not the result; of the passes that were made."""
    if plan.guide is None and (plan.uses_native or not plan.extrapolates):
        print("native sigmas  " + " ".join(f"{s:.4f}" for s in plan.native.sigmas), file=sys.stderr)
    for one in plan.passes:
        name = "target" if one is plan.last else str(one.render_size)
        print(f"{name} sigmas  " + " ".join(f"{s:.4f}" for s in one.sigmas), file=sys.stderr)


def _read_recipe(path: Path | None) -> dict[str, Any] | None:
    from imax_dist.output.image.provenance import read_recipe

    return None if path is None else read_recipe(path)


def requested(options: argparse.Namespace, recipe: dict[str, Any] | None = None) -> Request:
    """What the command line asks for. Raises BadValue or BadConfig for what can never be rendered."""
    from imax_dist.pipeline.recipe import request_of
    from imax_dist.pipeline.request import Request

    given = given_fields(options)
    recipe = recipe or _read_recipe(options.recipe)
    if recipe is not None:
        if options.prompt or given:
            raise BadValue("--recipe renders a recipe as it is; leave the prompt and its options away")
        return request_of(recipe, where=str(options.recipe))
    if not options.prompt:
        raise BadValue("no prompt was given; say what the poster shows, or give --recipe FILE")
    return from_mapping(Request, {"prompt": options.prompt, **given}, where="command line")


def _check_output(out: Path, request: Request) -> None:
    """Refuse before any work what could not be written at the end."""
    from imax_dist.output.atomic import require_writable
    from imax_dist.output.image.poster import require_printable

    require_printable(out, to_mapping(request))
    if out.is_dir():
        raise BadValue(f"--out {out} is a folder; give the name of a file")
    require_writable(out.parent)
