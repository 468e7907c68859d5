"""``imax upscale``: a picture of the user's, large; as ``imax generate``, with a picture for a prompt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from imax_dist.cli import generate
from imax_dist.cli.parser import VerbParser
from imax_dist.cli.request_options import (
    add_count_option,
    add_out_option,
    add_picture_options,
    add_poster_options,
    add_several_options,
)
from imax_dist.cli.user_defaults import of_user

STRENGTH = 0.3
EXAMPLES = """examples:
  imax upscale photo.jpg --scale 4
  imax upscale photo.jpg --paper A2 --dpi 200 --strength 0.2 --out wall.tif"""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "upscale",
        help="make a large print of your own picture",
        usage="imax upscale PICTURE [options]",
        description="Enlarge a picture; the model paints the detail that a larger one has room for.",
        epilog=EXAMPLES,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: VerbParser) -> None:
    """The options, the picture first; the user's defaults stand behind them."""
    parser.of_user = of_user
    poster = parser.add_argument_group("poster")
    poster.add_argument("guide", metavar="PICTURE", help="png, jpg, tif, webp, avif, heic or gif")
    poster.add_argument("--prompt", metavar="TEXT", help="what it shows (default: the prompt it carries)")
    add_out_option(poster)
    add_picture_options(poster, strength=f"{STRENGTH:g}")
    add_poster_options(poster, size="twice the picture")
    add_count_option(poster)
    add_several_options(parser.add_argument_group("several posters"))
    generate.add_render_options(parser)
    parser.set_defaults(recipe=None)


def prepare(options: argparse.Namespace) -> None:
    """Name the poster after the picture; a strength of our own where nothing says where a pass starts."""
    options.out = options.out or Path(f"{Path(options.guide).stem}-large.png")
    switches = [*(options.set or ()), *(options.grid or ())]
    own_start = options.preset not in (None, "imax") or any(
        each.startswith(("start", "strength", "preset")) for each in switches
    )
    if options.strength is None and not own_start:
        options.strength = STRENGTH


def run(options: argparse.Namespace) -> int:
    """Render it."""
    prepare(options)
    return generate.run(options)
