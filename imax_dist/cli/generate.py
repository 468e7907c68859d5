"""``imax generate``: one poster; ``torchrun -m imax_dist generate`` renders the same one on many ranks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.cli.parser import VerbParser
from imax_dist.cli.poster_request import Poster, check_output, recipe_of, wanted
from imax_dist.cli.progress import ProgressBars
from imax_dist.cli.render_result import print_result
from imax_dist.cli.request_options import (
    add_count_option,
    add_guide_options,
    add_method_options,
    add_out_option,
    add_parallel_options,
    add_picture_options,
    add_poster_options,
    add_recipe_options,
    add_several_options,
    filled_settings,
    parallel_settings,
    say_renamed,
)
from imax_dist.cli.stop_signal import StopSignal
from imax_dist.cli.user_defaults import of_user, sentence
from imax_dist.events import both, ignore, stage

if TYPE_CHECKING:
    from torch import Tensor

    from imax_dist.parallel.topology import Topology
    from imax_dist.pipeline.renderer import Renderer


EXAMPLES = """examples:
  imax generate "a red sun" --size 4096x4096 --out sea.png
  imax generate "a red sun" --paper A2 --dpi 150 --bleed 3mm --out sea.tif
  imax generate "a red sun" --guide photo.jpg --strength 0.5 --out sea.png
  imax generate --recipe sea.recipe.json --out again.png"""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "generate",
        help="render one poster, or several of one prompt",
        usage="imax generate PROMPT [options]",
        description="Render a poster from a prompt; with --count or --seeds several.",
        epilog=EXAMPLES,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: VerbParser) -> None:
    """The options, what a newcomer needs first; the user's defaults stand behind them."""
    parser.of_user = of_user
    poster = parser.add_argument_group("poster")
    poster.add_argument("prompt", nargs="?", metavar="PROMPT", help="what the poster shows, in quotes")
    add_out_option(poster, Path("poster.png"))
    add_poster_options(poster)
    add_count_option(poster)
    own = parser.add_argument_group("your own picture")
    add_guide_options(own)
    add_picture_options(own)
    more = parser.add_argument_group("several posters, or one again")
    add_several_options(more)
    add_recipe_options(more)
    add_render_options(parser)


def prepare(options: argparse.Namespace) -> None:
    """Nothing to look up: prompt and options say all."""
    del options


def add_render_options(parser: argparse.ArgumentParser) -> None:
    """What every command that renders has beside its poster."""
    add_method_options(parser.add_argument_group("method"))
    _add_running_options(parser.add_argument_group("running"))
    add_parallel_options(parser.add_argument_group("parallel (several ranks)"))
    parser.set_defaults(of_user={})


def _add_running_options(group: Any) -> None:
    add = group.add_argument
    add("--overwrite", action="store_true", help="replace the poster of another request")
    add("--keep-native", action="store_true", help="also write the native image")
    add(
        "--resume",
        choices=("auto", "never", "must"),
        default="auto",
        metavar="HOW",
        help="from a checkpoint: auto (default), never, must",
    )
    about = "steps between checkpoints (default 5; 0: none)"
    add("--checkpoint-every", type=int, default=5, metavar="STEPS", help=about)
    add("--preview", type=int, metavar="STEPS", help="steps between previews, FILE.preview.jpg")
    add("--json", action="store_true", help="one JSON object per poster on stdout")
    add("-v", "--verbose", action="store_true", help="show the sigmas and every step")
    add("-q", "--quiet", action="store_true", help="show no progress")
    add("--beacons", type=Path, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Render and write; all ranks come here, rank 0 writes."""
    if options.grid is not None:
        from imax_dist.cli.grid import generate_grid

        return generate_grid(options)
    from imax_dist.cli.out_of_memory import reported_out_of_memory
    from imax_dist.launcher.among import watched
    from imax_dist.launcher.rank_failure import lost_ranks_reported
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.parallel.topology import detect, process_group
    from imax_dist.pipeline.renderer import Renderer

    recipe = recipe_of(options.recipe)
    posters = wanted(options, recipe)
    topology = detect(device=options.device)
    _check_requests(options, posters, topology)
    quiet_libraries()
    stop = StopSignal(quiet=not topology.is_first)
    timeout = options.rank_timeout
    with (
        ExitStack() as watch,
        lost_ranks_reported(timeout),
        process_group(topology, timeout_s=timeout),
        ExitStack() as group,
    ):
        hang, compiled = posters[0].out.with_suffix(".hang"), parallel_settings(options).compile != "none"
        seen = watched(topology, options.beacons, evidence=hang, compiled=compiled)
        topology = watch.enter_context(seen)
        _check_outputs(options, posters, topology)
        quiet = options.quiet or not topology.is_first
        if not quiet:
            _say_first(options)
        requests = [poster.request for poster in posters]
        renderer = Renderer(topology, filled_settings(options, topology, requests), open_group=group)
        for number, poster in enumerate(posters):
            began = options.began if number == 0 else time.perf_counter()
            bars = ProgressBars(quiet=quiet, verbose=options.verbose, began=began)
            with closing(bars), reported_out_of_memory(poster.request, topology):
                _render(options, poster, renderer, bars=bars, stop=stop, recipe=recipe)
    return 0


def _check_requests(options: argparse.Namespace, posters: Sequence[Poster], topology: Topology) -> None:
    """Before the networks' libraries are imported; several ranks find out together, as one may download."""
    from imax_dist.pipeline.check import check_request

    if topology.world_size == 1:
        check_request(posters[0].request, parallel_settings(options), guide=False)


def _say_first(options: argparse.Namespace) -> None:
    """What the user's own defaults are, and what an old name of a preset stands for."""
    if options.of_user:
        print(sentence(options.of_user), file=sys.stderr)
    if options.preset:
        say_renamed([options.preset])


def _render(
    options: argparse.Namespace,
    poster: Poster,
    renderer: Renderer,
    *,
    bars: ProgressBars,
    stop: StopSignal,
    recipe: dict[str, Any] | None,
) -> None:
    from imax_dist.output.image.poster import write_poster
    from imax_dist.pipeline.checkpoint import CheckpointFolder
    from imax_dist.pipeline.preview import PreviewFile

    folder, every = checkpoint_folder(poster.out), options.preview
    checkpoints = CheckpointFolder(folder, every=options.checkpoint_every, resume=options.resume)
    stop.at_once(checkpoints.save_last)
    rendering = renderer.render(
        poster.request,
        checkpoints=checkpoints,
        listen=bars if renderer.topology.is_first else ignore,
        stop=stop,
        show_native=native_writer(poster.out) if options.keep_native else None,
        preview=PreviewFile(preview_path(poster.out), every) if every is not None else None,
    )
    if rendering.picture is not None:
        listen = both(bars, renderer.topology.marks.on_event)
        with stage(listen, "write"):
            complete = write_poster(poster.out, rendering.picture.bands(), rendering.recipe)
            checkpoints.remove()
            if every is not None:
                preview_path(poster.out).unlink(missing_ok=True)
        print_result(options, poster.out, rendering, complete, recipe=recipe, bars=bars)


def native_writer(out: Path) -> Callable[[Tensor], None]:
    """Writes the native picture beside the poster: ``sea.png`` has ``sea.native.png``."""
    from imax_dist.output.image.poster import write_native

    return lambda pixels: write_native(out.with_suffix(".native.png"), pixels)


def preview_path(out: Path) -> Path:
    """``sea.png`` has ``sea.preview.jpg`` until it is done."""
    return out.with_suffix(".preview.jpg")


def checkpoint_folder(out: Path) -> Path:
    """``sea.png`` keeps its checkpoints in ``sea.checkpoints`` until it is done."""
    return out.with_suffix(".checkpoints")


def _check_outputs(options: argparse.Namespace, posters: list[Poster], topology: Topology) -> None:
    """Refuse before any work, on every rank, what could not be written at the end."""
    from imax_dist.output.own_files import remove_unfinished
    from imax_dist.parallel.broadcast import from_first_rank

    def check() -> None:
        for poster in posters:
            check_output(poster.out, poster.request, overwrite=options.overwrite)
            remove_unfinished(poster.out)

    from_first_rank(check, topology)
