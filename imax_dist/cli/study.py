"""`imax study ...`: look at scenes, train the embedded model, measure it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from imax_dist.cli.parser import VerbParser
from imax_dist.cli.study_measure import MEASURING_VERBS
from imax_dist.cli.study_options import parse_size, require_counts
from imax_dist.cli.study_run import (
    all_arguments,
    list_studies,
    run_all,
    run_named,
    study_arguments,
)
from imax_dist.cli.study_train import TRAINING_VERBS
from imax_dist.cli.study_vote import run_vote, vote_arguments
from imax_dist.config import named_configs
from imax_dist.errors import BadValue

Parser = argparse.ArgumentParser
Verb = Callable[[argparse.Namespace], int]


def add_parser(subparsers: argparse._SubParsersAction[VerbParser]) -> None:
    """Add the command `study`, its own commands, and one for each study that ships (see `--list`)."""
    parser: VerbParser = subparsers.add_parser(
        "study",
        help="the testbed: studies, scenes, training, measurements",
        description="Run a study of the paper (imax study --list), or train and measure the embedded model.",
    )
    parser.add_argument("--list", action="store_true", help="the studies that ship, one a line")
    parser.set_defaults(run=run)
    parser.later = _declare
    parser.kind, parser.listed = "study or task", "--list lists the studies, --help the tasks"


def _declare(parser: VerbParser) -> None:
    verbs = parser.add_subparsers(dest="study_verb", metavar="NAME|TASK")
    for name, (text, add, _) in VERBS.items():
        add(verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))
    for name in named_configs("studies"):
        study_arguments(
            verbs.add_parser(name, description=f"Run the study {name}; imax study --list says what it shows.")
        )


def run(args: argparse.Namespace) -> int:
    """Run the chosen command; returns the exit code. Raises BadValue if none was chosen."""
    if args.list:
        return list_studies()
    if args.study_verb is None:
        raise BadValue("which study? imax study --list shows them, imax study --help the rest")
    if args.study_verb not in VERBS:
        return run_named(args.study_verb, args)
    verb: Verb = VERBS[args.study_verb][2]
    return verb(args)


def _scenes_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG to write")
    parser.add_argument("--n", type=int, default=12, help="how many scenes (default 12)")
    parser.add_argument("--size", default="512x512", metavar="WxH", help="pixels of each (default 512x512)")
    parser.add_argument("--seed", type=int, default=0, help="first scene seed (default 0)")


def _scenes(args: argparse.Namespace) -> int:
    from imax_dist.output.image.sheet import write_sheet
    from imax_dist.study.scenes import caption, render, sample_scene

    require_counts(args, "n")
    height, width = parse_size(args.size)
    scenes = [sample_scene(args.seed + k) for k in range(args.n)]
    write_sheet(args.out, [render(scene, height, width) for scene in scenes], columns=4)
    for scene in scenes:
        print(caption(scene))
    return 0


def _sheet_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="pictures of one shape")
    add("--crop", required=True, metavar="X,Y,W,H", help="in pixels of the largest picture")
    add("--whole", action="store_true", help="the whole pictures above, each as wide as the crop")
    add("--heads", nargs="+", metavar="WORDS", help="above each picture (default: the files' names)")
    add("--out", type=Path, required=True, metavar="FILE", help="PNG or JPEG to write")


def _sheet(args: argparse.Namespace) -> int:
    from imax_dist.output.image.png import read_pixels
    from imax_dist.output.image.sheet import same_crop, smaller, stacked, write_sheet

    numbers = args.crop.split(",")
    if len(numbers) != 4 or not all(number.strip().isdigit() for number in numbers):
        raise BadValue(f"--crop {args.crop!r} is not X,Y,W,H; write for example 128,96,256,256")
    heads = args.heads or [file.stem for file in args.files]
    if len(heads) != len(args.files):
        raise BadValue(f"--heads has {len(heads)} for {len(args.files)} pictures; give one for each")
    left, top, width, height = (int(number) for number in numbers)
    pictures = [read_pixels(file) for file in args.files]
    rows = [same_crop(pictures, (left, top, width, height))]
    if args.whole:
        full = max(pictures, key=len).shape
        rows.insert(0, [smaller(one, width=width) for one in same_crop(pictures, (0, 0, full[1], full[0]))])
    write_sheet(args.out, [stacked(rows)], heads=heads)
    print(args.out)
    return 0


def _file_arguments(parser: Parser) -> None:
    parser.add_argument("file", help="a YAML file like those of configs/studies")
    study_arguments(parser)


def _file(args: argparse.Namespace) -> int:
    return run_named(args.file, args)


VERBS: dict[str, tuple[str, Callable[[Parser], None], Verb]] = {
    "scenes": ("draw a sheet of scenes and print their captions", _scenes_arguments, _scenes),
    "sheet": ("lay the same crop of several pictures side by side", _sheet_arguments, _sheet),
    "run": ("run a study of your own", _file_arguments, _file),
    "all": ("run every study and write RESULTS.md", all_arguments, run_all),
    "vote": ("pairwise preference over a study's pictures", vote_arguments, run_vote),
    **TRAINING_VERBS,
    **MEASURING_VERBS,
}
