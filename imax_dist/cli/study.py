"""`imax study ...`: look at scenes, train the embedded model, measure it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from imax_dist.cli.study_train import TRAINING_VERBS, parse_size

Parser = argparse.ArgumentParser
Verb = Callable[[argparse.Namespace], int]


def add_parser(subparsers: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb `study` and its own verbs."""
    parser: Parser = subparsers.add_parser("study", help="the testbed: scenes, training, measurements")
    parser.set_defaults(run=run)
    verbs = parser.add_subparsers(dest="study_verb", required=True, metavar="WHAT")
    for name, (text, add, _) in VERBS.items():
        add(verbs.add_parser(name, help=text, description=text))


def run(args: argparse.Namespace) -> int:
    """Run the chosen verb; returns the exit code."""
    verb: Verb = VERBS[args.study_verb][2]
    return verb(args)


def _scenes_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--n", type=int, default=12, help="how many scenes")
    parser.add_argument("--size", default="512x512", help="WIDTHxHEIGHT of each")
    parser.add_argument("--seed", type=int, default=0, help="first scene seed")


def _scenes(args: argparse.Namespace) -> int:
    from imax_dist.output.sheet import write_sheet
    from imax_dist.study.scenes import caption, render, sample_scene

    height, width = parse_size(args.size)
    scenes = [sample_scene(args.seed + k) for k in range(args.n)]
    write_sheet(args.out, [render(scene, height, width) for scene in scenes], columns=4)
    for scene in scenes:
        print(caption(scene))
    return 0


VERBS: dict[str, tuple[str, Callable[[Parser], None], Verb]] = {
    "scenes": ("draw a sheet of scenes and print their captions", _scenes_arguments, _scenes),
    **TRAINING_VERBS,
}
