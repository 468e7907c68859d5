"""``imax batch``: many posters from a manifest, on gangs of ranks under Ray; durable and resumable."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.cli.request_options import add_part_options, say_renamed
from imax_dist.errors import BadValue

if TYPE_CHECKING:
    from imax_dist.jobs.batch import Batch
    from imax_dist.jobs.job import Job
    from imax_dist.jobs.manifest.read import Manifest
    from imax_dist.jobs.settings import PoolSettings


EXAMPLES = """examples:
  imax batch posters.jsonl --out posters
  imax batch posters.csv --out posters --ray auto --gangs 4 --ranks 2"""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "batch",
        help="render many posters from a manifest",
        description="Render what a manifest lists and the folder lacks. Run it again to resume.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("manifest", nargs="?", type=Path, help="JSONL, CSV, YAML or .txt (default: what is queued in DIR)")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="output folder; each poster gets a folder in it",
    )
    add("--store", metavar="PLACE", help="the queue: postgresql://USER@HOST/DB, or a file (default: in DIR)")
    add(
        "--deliver",
        metavar="URL",
        help="where finished posters are uploaded: s3://BUCKET/PREFIX, gs://, az://",
    )
    add("--ray", default="local", metavar="WHERE", help="local (default), auto, or a cluster's address")
    add("--pool", metavar="NAME", help="a name (imax list jobs) or a file (default: local, or default)")
    add_part_options(parser)
    add("--gangs", type=int, help="posters rendered at once (default: planned)")
    add("--ranks", type=int, help="ranks that render one poster together (default: planned)")
    add("--device", choices=("auto", "cpu", "cuda"), help="device of every rank (default: the pool's)")
    add("--shard", metavar="I/N", help="render every N-th poster, from the I-th on; a queue for each shard")
    add(
        "--proofs-only",
        action="store_true",
        help="render native pictures only, for imax approve",
    )
    add("--grid", nargs="+", metavar="NAME=VALUES", help="each poster for every value: seed=1..8 dpi=150,200")
    add("--alive", type=Path, metavar="FILE", help="touched while the batch makes progress, for probes")
    add("--check", action="store_true", help="report every mistake in the manifest and exit")
    add("--json", action="store_true", help="result as JSON on stdout")
    add("-q", "--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check, or render; 0 if every poster is there, 76 if some failed."""
    from imax_dist.jobs.batch import Batch

    settings = _settings(options)
    batch = Batch(
        out=options.out,
        settings=settings,
        jobs=_jobs(options, settings),
        ray=options.ray,
        shard=options.shard,
        proofs_only=options.proofs_only,
        store=options.store,
        alive=options.alive,
    )
    if options.check:
        return _check(options, batch)
    if options.grid is not None:
        from imax_dist.cli.grid import run_grid

        return run_grid(options, batch)
    if batch.jobs and not options.quiet:
        say_renamed(job.request.preset for job in batch.jobs)
    return _render(options, batch)


def _render(options: argparse.Namespace, batch: Batch) -> int:
    from imax_dist.cli.batch_progress import rendered
    from imax_dist.cli.status import print_end

    return print_end(rendered(batch, quiet=options.quiet), as_json=options.json)


def _settings(options: argparse.Namespace) -> PoolSettings:
    from imax_dist.jobs.batch import load_pool_settings

    given = {
        "gangs": options.gangs,
        "ranks": options.ranks,
        "device": options.device,
        "deliver": options.deliver,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    name = options.pool or ("local" if options.ray == "local" else "default")
    return load_pool_settings(name, changes)


def _jobs(options: argparse.Namespace, settings: PoolSettings) -> list[Job] | None:
    from imax_dist.jobs.manifest.read import MOST_MISTAKES, MOST_SHOWN, read_manifest, shard
    from imax_dist.pipeline.named_files import Parts

    if options.manifest is None:
        if options.check:
            raise BadValue("--check needs a manifest; name the file")
        if options.vae or options.encoder:
            raise BadValue("--vae and --encoder are for the lines of a manifest; name the file")
        return None
    most = MOST_MISTAKES + 1 if options.check else MOST_SHOWN
    parts = Parts(options.vae, tuple(options.encoder))
    manifest = read_manifest(options.manifest, settings.limits, parts=parts)
    if options.check and options.ray == "local":  # other machines may have other models and files
        manifest = _with_checked_plans(manifest)
    jobs = manifest.require_sound(options.manifest, most_shown=most)
    return jobs if options.shard is None else shard(jobs, options.shard)


def _with_checked_plans(manifest: Manifest) -> Manifest:
    """With a mistake for each line whose model, plan, guide or LoRA files are not available here."""
    from imax_dist.jobs.manifest.files import Mistake
    from imax_dist.pipeline.check import CheckWithoutModel

    check = CheckWithoutModel()
    found = {
        Mistake(manifest.lines[job.id], problem) for job in manifest.jobs if (problem := check(job.request))
    }
    return manifest._replace(mistakes=sorted({*manifest.mistakes, *found}))


def _check(options: argparse.Namespace, batch: Batch) -> int:
    """All that could be found wrong before anything is started; nothing is written."""
    from imax_dist.cli.grid import grid_batch
    from imax_dist.jobs.batch import check_places
    from imax_dist.pipeline.check import CheckWithoutModel

    if options.grid is not None:
        batch, *_ = grid_batch(batch, options.grid)
        look = CheckWithoutModel()
        for job in (batch.jobs or []) if options.ray == "local" else []:
            if problem := look(job.request):
                raise BadValue(f"--grid: {problem}")
    check_places(batch)
    return _report_check(options, batch.settings, batch.jobs or [])


def _report_check(options: argparse.Namespace, settings: PoolSettings, jobs: Sequence[Job]) -> int:
    from imax_dist.jobs.sizing import fill_defaults_from_plan, this_host
    from imax_dist.pipeline.request import size_in_words
    from imax_dist.settings_mapping import to_mapping
    from imax_dist.wording import plural

    sizes = sorted({size_in_words(to_mapping(job.request)) for job in jobs})
    plan = ""
    if options.ray == "local":  # another cluster is not asked before it is used
        _, plan = fill_defaults_from_plan(settings, [job.request for job in jobs], [this_host()])
    if options.json:
        ids = [job.id for job in jobs]
        print(json.dumps({"posters": len(jobs), "ids": ids, "sizes": sizes, "plan": plan}))
    else:
        print(f"{options.manifest}: {plural(len(jobs), 'poster')}, {', '.join(sizes)}; nothing is wrong")
        if plan:
            print(plan)
    sys.stdout.flush()
    return 0
