"""``imax redo``: a region of a finished poster again; outside of it the poster stays bit for bit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from imax_dist.cli import generate
from imax_dist.cli.request_options import (
    add_count_option,
    add_model_options,
    add_several_options,
    add_sliders,
)

TAKEN_OVER = ("model", "lora", "lora_partial", "paper", "dpi", "bleed", "landscape")
"""Fields of the poster's own request that hold unless the command line says more."""
EXAMPLES = """example: a boat in the lower left corner
  imax redo sea.png --region 0,3000,1024,1024 --prompt "a boat" --strength 0.8"""
BIT_FOR_BIT = (".png", ".tif", ".tiff")
BITS_OF_PNG = 8
"""Of those that posters are written in."""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "redo",
        help="render a region of a finished poster again",
        usage="imax redo POSTER --region X,Y,W,H [options]",
        description="Render a region of a finished poster again. The network sees the whole poster; "
        "outside the region every pixel stays as it is.",
        epilog=EXAMPLES,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, the poster and the region first."""
    poster = parser.add_argument_group("poster")
    poster.add_argument("guide", metavar="POSTER", help="png or tif, at its full size")
    poster.add_argument("--region", required=True, metavar="X,Y,W,H", help="left, top, width, height in px")
    poster.add_argument("--prompt", metavar="TEXT", help="what it shows (default: the prompt it carries)")
    poster.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="png or tif (default: POSTER-redo, as the poster)"
    )
    add_sliders(poster, strength="0.6", resemblance="0")
    add_model_options(poster)
    add_count_option(poster)
    poster.add_argument("--trust-recipe", action="store_true", help="let its recipe name files and hub ids")
    add_several_options(parser.add_argument_group("several posters"))
    generate.add_render_options(parser)
    parser.set_defaults(recipe=None)


def run(options: argparse.Namespace) -> int:
    """Render it."""
    prepare(options)
    return generate.run(options)


def prepare(options: argparse.Namespace) -> None:
    """Name the new poster, and take over what the recipe of the old one says of its model and paper.

    Raises BadValue where --out could not keep the rest of the poster bit for bit.
    """
    from imax_dist.errors import BadValue
    from imax_dist.output.image.guide import open_guide
    from imax_dist.output.image.provenance import find_recipe
    from imax_dist.output.image.reader import require_file
    from imax_dist.pipeline.trust import require_harmless

    poster = Path(options.guide)
    options.out = options.out or poster.with_name(f"{poster.stem}-redo{poster.suffix}")
    if options.out.suffix.lower() not in BIT_FOR_BIT:
        raise BadValue(
            f"--out {options.out}: outside the region the poster is kept bit for bit, which "
            f"{options.out.suffix or 'a file without ending'} cannot hold; write png or tif"
        )
    require_file(poster, "poster")
    if options.out.suffix.lower() == ".png" and open_guide(poster).bands.bits > BITS_OF_PNG:
        raise BadValue(
            f"--out {options.out}: {poster} has more than the 8 bits a colour that a PNG is written with; "
            "write tif"
        )
    request = (find_recipe(poster) or {}).get("request")
    taken = {
        name: request[name]
        for name in TAKEN_OVER
        if getattr(options, name, None) is None and isinstance(request, dict) and request.get(name)
    }
    if not options.trust_recipe:
        recipe = {"request": {"prompt": "-", **taken}}
        require_harmless(recipe, beside=poster.parent, named=frozenset(), where=str(poster))
    for name, value in taken.items():
        setattr(options, name, value)
