"""``imax plan``: who would run what, how long it takes, what it needs; no GPU and no weights are touched."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.cli.request_options import (
    add_guide_options,
    add_method_options,
    add_picture_options,
    add_poster_options,
    given_poster,
    parallel_settings,
    say_renamed,
)
from imax_dist.errors import BadValue

if TYPE_CHECKING:
    from imax_dist.pipeline.ranks import ParallelSettings
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.workload import Workload

MOST_POSTERS = 100_000


EXAMPLES = """examples:
  imax plan --gpus 8xH100 --model flux-dev --size 8192x8192
  imax plan --gpus 2x8xA100 posters.jsonl"""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "plan",
        help="what posters cost on a cluster, before any GPU is touched",
        description="Choose gangs and ranks for a manifest, or --count posters of one size.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("manifest", nargs="?", type=Path, help="JSONL, CSV, YAML or .txt; without it, posters of one size")
    add("--gpus", required=True, metavar="CLUSTER", help="8xH100, 2x8xA100 (nodes x GPUs), 4xcpu (cores)")
    add("--hardware", metavar="FILE", help="rates of imax doctor --measure, instead of the data sheet")
    add("--count", type=int, default=1, metavar="N", help="posters of that size (default 1)")
    add("--gangs", type=int, help="fix how many posters at once")
    add("--ranks", type=int, help="fix how many ranks render one poster together")
    add("--ulysses", type=int, help="fix the Ulysses degree of a gang")
    add("--ring", type=int, help="fix its ring degree")
    add(
        "--parallel",
        metavar="NAME",
        help="a file of configs/parallel, or a path: vae_memory_gib, text_encoders, compile, degrees",
    )
    poster = parser.add_argument_group("poster")
    add_poster_options(poster)
    add_guide_options(poster)
    add_picture_options(poster)
    add_method_options(parser.add_argument_group("method"))
    add("--all", action="store_true", help="list every rejected plan, not one per gang size")
    add("--json", action="store_true", help="result as JSON on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan; 64 with what would fit if nothing does. Raises BadValue for a count below 1."""
    from imax_dist.planner.choose import choose
    from imax_dist.planner.cluster import parse_cluster
    from imax_dist.planner.describe import as_json, lines
    from imax_dist.planner.hardware import load_hardware

    parallel = parallel_settings(options)
    decided = {name: getattr(options, name) for name in ("gangs", "ranks")}
    decided |= {name: getattr(parallel, name) for name in ("ulysses", "ring")}
    for name, count in decided.items():
        if count is not None and count < 1:
            raise BadValue(f"--{name} {count} must be at least 1")
    hardware = load_hardware(options.hardware) if options.hardware else None
    cluster = parse_cluster(options.gpus, hardware)
    requests = _requests(options)
    works = _works(requests, cluster.hardware.kind, parallel)
    choice = choose(works, cluster, **decided)
    if options.json:
        print(json.dumps(as_json(choice, works)))
    else:
        print("\n".join(lines(choice, works, presets=[each.preset for each in requests], every=options.all)))
    return 0


def _requests(options: argparse.Namespace) -> list[Request]:
    from imax_dist.pipeline.request import Request
    from imax_dist.settings_mapping import from_mapping

    given = given_poster(options)
    if options.preset:
        say_renamed([options.preset])
    if options.manifest is None:
        if not 1 <= options.count <= MOST_POSTERS:
            raise BadValue(f"--count {options.count} is outside 1 to {MOST_POSTERS}")
        request = from_mapping(Request, {"prompt": "a poster", **given}, where="command line")
        return [request] * options.count
    from imax_dist.jobs.manifest.text import READERS

    if not options.manifest.exists() and options.manifest.suffix.lower() not in READERS:
        raise BadValue(f"{str(options.manifest)!r} is not a manifest file; imax plan needs no prompt")
    if given or options.count != 1:
        raise BadValue("a manifest gives sizes, models and counts itself; omit these options")
    from imax_dist.jobs.manifest.read import read_manifest
    from imax_dist.jobs.settings import Limits

    jobs = read_manifest(options.manifest, Limits()).require_sound(options.manifest)
    return [job.request for job in jobs]


def _works(requests: list[Request], device: Any, parallel: ParallelSettings) -> list[Workload]:
    from imax_dist.planner.workload import with_settings, workloads

    made = workloads(requests, device=device)
    once = {work: with_settings(work, parallel, device=device) for work in dict.fromkeys(made)}
    return [once[work] for work in made]
