"""`imax study NAME`, `run FILE`, `all`, `vote`: run studies and write what they found."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.errors import BadValue

if TYPE_CHECKING:
    from imax_dist.study.experiments.settings import Study

Parser = argparse.ArgumentParser
PAGE = Path("RESULTS.md")


def study_arguments(parser: Parser) -> None:
    """Options of a study."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for numbers, table, plot and sheets"
    )
    parser.add_argument("--model", default="embedded", help="name, folder or hub id (default embedded)")
    parser.add_argument("--n", type=int, help="scenes at every size (default: the study's own)")
    parser.add_argument("--small", action="store_true", help="two scenes, seconds: to see that it runs")
    parser.add_argument("--processes", type=int, default=1, help="processes that draw (default 1)")
    parser.add_argument(
        "--guide",
        choices=("native", "truth"),
        metavar="BY",
        help="native (default: as the study says), or truth: the true native render",
    )
    parser.add_argument("--upscaler", metavar="NAME", help="a super-resolution network: one more variant")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="pictures shared by studies (default: cache beside --out)"
    )
    parser.add_argument("--device", default="auto", metavar="KIND", help="auto (default), cpu or cuda")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def list_studies() -> int:
    """One line a study on stdout."""
    from imax_dist.study.experiments.settings import load_study, study_names

    for name in study_names():
        study = load_study(name)
        paper = f" ({study.paper})" if study.paper else ""
        print(f"{name:22} {study.title}{paper}; {len(study.variants)} variants")
    return 0


def run_named(name: str, args: argparse.Namespace, *, announced: bool = True) -> int:
    """Run one study and write its report; stdout names the files. Says first how long it takes, if asked."""
    from imax_dist.models.libraries import quiet_libraries
    from imax_dist.study.experiments.report import write_report

    quiet_libraries()
    study = _study_of(name, args)
    title = Path(name).stem
    out, cache = args.out, _cache(args)
    _require_same_study(out, title, args.model)
    if announced:
        _print_estimate([study], args)
    found = _run(title, study, args)
    write_report(out, found, cache)
    print((out / "table.md").read_text(encoding="utf-8"))
    if found["refused"]:
        text = f"not measured, since {args.model} does not draw scenes: {', '.join(found['refused'])}"
        print(text, file=sys.stderr)
    print(f"{out}/results.json, table.md, plot.png, plot.svg and sheets", file=sys.stderr)
    return 0


def run_all(args: argparse.Namespace) -> int:
    """Run every study that ships, or only gather, and write the page.

    With --only the page is written if all studies are there by then, or if --page names it.
    """
    from imax_dist.study.experiments.results import missing_studies, write_results
    from imax_dist.study.experiments.settings import study_names

    root = args.out
    args.cache = args.cache or root / "cache"
    names = [] if args.gather else args.only or study_names()
    if names:
        _print_estimate([_study_of(name, args) for name in names], args)
    for name in names:
        args.out = root / name
        run_named(name, args, announced=False)
    missing = missing_studies(root)
    if missing and len(missing) < len(study_names()):
        print(f"not run yet: {', '.join(missing)}", file=sys.stderr)
    if missing and args.only and args.page is None:
        print(f"{PAGE} stays as it is: a page of some studies is written where --page says", file=sys.stderr)
        return 0
    page = args.page or PAGE
    write_results(root, page, args.pictures, _cache(args))
    print(f"{page} and its pictures in {args.pictures}", file=sys.stderr)
    return 0


def all_arguments(parser: Parser) -> None:
    """Options of `imax study all`."""
    study_arguments(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this study, repeatable")
    parser.add_argument(
        "--gather", action="store_true", help="draw nothing; write the page from existing results"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help=f"page to write (default {PAGE}; with --only, none)"
    )
    parser.add_argument(
        "--pictures", type=Path, default=Path(".github/images/results"), metavar="DIR", help="its pictures"
    )


def _cache(args: argparse.Namespace) -> Any:
    from imax_dist.study.experiments.draw import ResultCache

    return ResultCache(args.cache or args.out.parent / "cache")


def _study_of(name: str, args: argparse.Namespace) -> Study:
    """The study with the command line's changes. Raises BadValue or BadConfig."""
    from dataclasses import replace

    from imax_dist.study.experiments.settings import load_study

    study = load_study(name)
    if args.n is not None and args.n < 1:
        raise BadValue(f"--n {args.n} is too few scenes; ask for 1 or more")
    if args.upscaler:
        from imax_dist.output.image.super_resolution import require_model

        require_model(args.upscaler)
        study = study.with_upscaler(args.upscaler)
    study = study.shortened() if args.small else study
    study = study.with_scenes(args.n) if args.n else study
    return replace(study, guide=args.guide) if args.guide else study


def _print_estimate(studies: list[Study], args: argparse.Namespace) -> None:
    """One line on stderr; where a GPU draws, without the time, since the forecast is a CPU's."""
    from imax_dist.models.load import describe_model
    from imax_dist.parallel.topology import pick_device
    from imax_dist.study.experiments.cell import cells_of
    from imax_dist.study.experiments.forecast import forecast

    if args.quiet:
        return
    spec = describe_model(args.model)
    found = forecast((cell for study in studies for cell in cells_of(study, args.model, spec)), _cache(args))
    on_cpu = pick_device(args.device, local_rank=0).type == "cpu"
    print(found.sentence(args.processes, timed=on_cpu), file=sys.stderr, flush=True)


def _run(title: str, study: Study, args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from imax_dist.output.atomic import require_writable
    from imax_dist.study.experiments.run import Conditions, run_study

    require_writable(args.out)
    torch.set_num_threads(1)
    conditions = Conditions(args.model, args.processes, args.device)
    on_progress, close = progress_bar(title, quiet=args.quiet)
    try:
        return run_study(title, study, _cache(args), conditions, on_progress=on_progress)
    finally:
        close()


def _require_same_study(out: Path, name: str, model: str) -> None:
    """Raises BadValue where the folder holds the results of another study or model."""
    try:
        held = json.loads((out / "results.json").read_text(encoding="utf-8"))
        found = (str(held["study"]), str(held["model"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return
    if found != (name, model):
        raise BadValue(
            f"{out} holds the results of study {found[0]} with model {found[1]}, not of {name} with {model}; "
            f"give another --out, such as {out.parent / name}"
        )


def progress_bar(title: str, *, quiet: bool) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """A progress bar on stderr: pictures done, of all, and the time left."""
    from imax_dist.cli.bars import Bars

    bars = Bars(quiet=quiet)

    def advance(done: int, total: int) -> None:
        bars.show(title, title, done, total)

    return advance, bars.close
