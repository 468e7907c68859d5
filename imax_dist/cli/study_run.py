"""`imax study NAME`, `run FILE`, `all`, `vote`: conduct studies and write what they found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imax_dist.errors import BadValue

if TYPE_CHECKING:
    from imax_dist.study.experiments.settings import Study

Parser = argparse.ArgumentParser


def study_arguments(parser: Parser) -> None:
    """Options of a study."""
    parser.add_argument("--out", type=Path, required=True, help="folder for numbers, table, plot and sheets")
    parser.add_argument("--model", default="embedded", help="model to study (name, folder or hub id)")
    parser.add_argument("--n", type=int, help="scenes at every size (default: the study's own)")
    parser.add_argument("--small", action="store_true", help="two scenes, seconds: to see that it runs")
    parser.add_argument("--processes", type=int, default=1, help="processes that draw (default 1)")
    parser.add_argument("--guide", choices=("native", "truth"), help="guide by the true native render")
    parser.add_argument("--upscaler", help="spandrel .safetensors: one more variant")
    parser.add_argument("--cache", type=Path, help="pictures shared by studies (default OUT/../cache)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def list_studies() -> int:
    """One line a study on stdout."""
    from imax_dist.study.experiments.settings import load_study, study_names

    for name in study_names():
        study = load_study(name)
        print(f"{name:22} {study.title} ({study.paper}); {len(study.variants)} variants")
    return 0


def run_study(name: str, args: argparse.Namespace) -> int:
    """Conduct one study and write its report; stdout names the files."""
    from imax_dist.models.quiet import quiet_libraries
    from imax_dist.study.experiments.report import write_report

    quiet_libraries()
    study = _asked(name, args)
    title = Path(name).stem
    out, shelf = args.out, _shelf(args)
    found = _conduct(title, study, args)
    write_report(out, found, shelf)
    print((out / "table.md").read_text(encoding="utf-8"))
    if found["refused"]:
        text = f"not measured, since {args.model} does not draw scenes: {', '.join(found['refused'])}"
        print(text, file=sys.stderr)
    print(f"{out}/results.json, table.md, plot.png, plot.svg and sheets", file=sys.stderr)
    return 0


def run_all(args: argparse.Namespace) -> int:
    """Conduct every study that ships, or only gather, and write the page."""
    from imax_dist.study.experiments.results import write_results
    from imax_dist.study.experiments.settings import study_names

    root = args.out
    args.cache = args.cache or root / "cache"
    for name in [] if args.gather else args.only or study_names():
        args.out = root / name
        run_study(name, args)
    missing = write_results(root, args.page, args.pictures, _shelf(args))
    print(f"{args.page} and its pictures in {args.pictures}", file=sys.stderr)
    if missing:
        print(f"not conducted yet: {', '.join(missing)}", file=sys.stderr)
    return 0


def all_arguments(parser: Parser) -> None:
    """Options of `imax study all`."""
    study_arguments(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this study, repeatable")
    parser.add_argument(
        "--gather", action="store_true", help="draw nothing; write the page from what is there"
    )
    parser.add_argument("--page", type=Path, default=Path("RESULTS.md"), help="page to write")
    parser.add_argument("--pictures", type=Path, default=Path(".github/images/results"), help="its pictures")


def _shelf(args: argparse.Namespace) -> Any:
    from imax_dist.study.experiments.artist import Shelf

    return Shelf(args.cache or args.out.parent / "cache")


def _asked(name: str, args: argparse.Namespace) -> Study:
    """The study with the command line's changes. Raises BadValue or BadConfig."""
    from dataclasses import replace

    from imax_dist.study.experiments.settings import load_study

    study = load_study(name)
    if args.n is not None and args.n < 1:
        raise BadValue(f"--n {args.n} is too few scenes; ask for 1 or more")
    if args.upscaler:
        from imax_dist.output.image.super_resolution import require_model

        require_model(Path(args.upscaler))
        study = study.with_upscaler(args.upscaler)
    study = study.shortened() if args.small else study
    study = study.with_scenes(args.n) if args.n else study
    return replace(study, guide=args.guide) if args.guide else study


def _conduct(title: str, study: Study, args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from imax_dist.output.atomic import require_writable
    from imax_dist.study.experiments.conduct import Conditions, conduct

    require_writable(args.out)
    torch.set_num_threads(1)
    under = Conditions(args.model, args.processes, args.device)
    tell, close = progress_bar(title, quiet=args.quiet)
    try:
        return conduct(title, study, _shelf(args), under, tell=tell)
    finally:
        close()


def progress_bar(title: str, *, quiet: bool) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """A progress bar on stderr: pictures done, of all, and the time left."""
    from tqdm import tqdm

    bar = tqdm(desc=title, unit="picture", file=sys.stderr, disable=quiet, mininterval=1.0)

    def tell(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return tell, bar.close
