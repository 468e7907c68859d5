"""``imax finish``: a print file from a render."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imax_dist.cli.request_options import add_paper_options
from imax_dist.errors import BadValue, ImaxError
from imax_dist.settings_mapping import from_mapping
from imax_dist.wording import file_size

CHOICES = (
    "paper", "dpi", "bleed", "landscape", "bits", "icc", "intent", "output_intent", "scale", "cut",
    "crop_marks", "quality", "lossless", "black_point_compensation", "mirror_bleed", "panels",
    "overlap", "order",
)  # fmt: skip
"""Options that are fields of FinishSettings."""


EXAMPLES = """examples:
  imax finish sea.png --paper A2 --dpi 300 --bleed 3mm --crop-marks
  imax finish sea.tif --to tif --icc press.icc --paper 50x70cm --out print.tif"""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "finish",
        help="make a print file",
        description="Make a print file (TIFF, PNG, JPEG, PDF) from a rendered poster. Without --paper the "
        "sheet is the one the poster was rendered for; without --dpi its pixels are kept.",
        epilog=EXAMPLES,
    )
    parser.add_argument("poster", type=Path, help="tif or png made by `imax generate` or `imax batch`")
    parser.add_argument("--to", metavar="KIND", help="pdf (default), tif, png, jpg")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="file to write (default: POSTER-print.KIND)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that is not a print of this picture"
    )
    parser.add_argument("--json", action="store_true", help="result as JSON on stdout")
    sheet = parser.add_argument_group("sheet")
    add_paper_options(sheet)
    _add_page_options(sheet)
    _add_colour_options(parser.add_argument_group("colour and coding"))
    signature = parser.add_argument_group("signature")
    signature.add_argument("--sign", type=Path, metavar="CERT", help="add C2PA, signed by this chain (PEM)")
    signature.add_argument("--key", type=Path, help="private key for --sign (PEM)")
    parser.set_defaults(run=run)


def _add_colour_options(parser: Any) -> None:
    parser.add_argument("--bits", type=int, help="8 or 16 per channel (default: as the picture)")
    parser.add_argument("--icc", metavar="NAME", help="profile to convert to (imax list profiles), or a file")
    parser.add_argument(
        "--intent", metavar="HOW", help="relative (default), perceptual, saturation, absolute"
    )
    parser.add_argument(
        "--no-black-point",
        dest="black_point_compensation",
        action="store_false",
        default=None,
        help="convert without black-point compensation",
    )
    parser.add_argument("--background", metavar="#RRGGBB", help="under transparent parts (default white)")
    parser.add_argument("--quality", type=int, help="JPEG quality, alone or in a PDF (default 95)")
    parser.add_argument("--lossless", action="store_true", default=None, help="PDF: lossless, no JPEG")


def _add_page_options(parser: Any) -> None:
    parser.add_argument("--scale", metavar="HOW", help="lanczos, realesrgan-x4plus, or a .safetensors")
    parser.add_argument("--cut", action="store_true", default=None, help="crop to a sheet of another shape")
    parser.add_argument("--crop-marks", action="store_true", default=None, help="PDF: marks around the trim")
    parser.add_argument("--output-intent", metavar="NAME", help="PDF: the printing condition's ICC profile")
    parser.add_argument(
        "--mirror-bleed",
        action="store_true",
        default=None,
        help="fill --bleed with the picture's edges, mirrored",
    )
    parser.add_argument("--panels", metavar="CxR", help="write overlapping panels: 3x2 is 6 files")
    parser.add_argument("--overlap", metavar="LENGTH", help="overlap of neighbouring panels (default 10mm)")
    parser.add_argument("--order", metavar="TEXT", help="order number, written into the file and {order}")


def run(options: argparse.Namespace) -> int:
    """Finish one file and say what was done. Raises BadValue if it would replace the poster."""
    from imax_dist.output.image.finish import check, files_of, finish, finish_panels, inherit
    from imax_dist.output.image.reader import WHITE, open_picture
    from imax_dist.output.image.settings import FinishSettings, parse_colour

    given = {name: getattr(options, name) for name in CHOICES if getattr(options, name) is not None}
    settings = from_mapping(FinishSettings, given, where="command line")
    out = _target(options)
    if out.resolve() == options.poster.resolve():
        raise BadValue(f"--out {out} is the poster itself; give another name")
    check(out, settings)
    if options.sign is not None or options.key is not None:
        _check_signing(options, out)
    background = parse_colour(options.background) if options.background else WHITE
    picture = open_picture(options.poster, background=background)
    settings = inherit(settings, picture.recipe)
    if not options.overwrite:
        for path in files_of(out, settings):
            _require_own(path, picture.recipe)
    if settings.panels is None:
        finished = {out: finish(picture, out, settings)}
    else:
        finished = finish_panels(picture, out, settings)
    for path, made in finished.items():
        if options.sign is not None:
            from imax_dist.output.image.sign import sign

            sign(path, options.sign, options.key)
        unknown = [] if picture.recipe else ["the picture carries no recipe, nor will the print"]
        _print_result(options, path, made.record, [*made.notes, *unknown])
    return 0


def _target(options: argparse.Namespace) -> Path:
    """The file to write. Raises BadValue where --to and --out contradict each other."""
    from imax_dist.output.image.settings import kind_of

    poster: Path = options.poster
    named = poster.with_name(f"{poster.stem}-print.{(options.to or 'pdf').lower()}")
    if options.out is None:
        return named
    out = Path(named_file(str(options.out), options))
    if options.to is not None and kind_of(named) != kind_of(out):
        raise BadValue(f"--to {options.to} and --out {out} contradict each other; omit --to")
    return out


def _require_own(out: Path, recipe: Mapping[str, Any] | None) -> None:
    """Raise BadValue where ``out`` is there and is not a print of the picture with this recipe."""
    from imax_dist.output.image.provenance import find_recipe

    if not out.is_file():
        return
    if recipe is None:
        raise BadValue(
            f"{out} already exists, and without a recipe it cannot be recognised as this picture's print; "
            "give another --out, or --overwrite"
        )
    try:
        before = find_recipe(out)
    except (ImaxError, OSError):
        before = None
    if before is None or before.get("request") != recipe.get("request"):
        raise BadValue(f"{out} is not a print of this picture; give another --out, or --overwrite")


def named_file(text: str, options: argparse.Namespace) -> str:
    """``{order}_{paper}.pdf`` with what each stands for. Raises BadValue for another or a missing word."""
    words = {"name": options.poster.stem, "order": options.order, "paper": options.paper, "dpi": options.dpi}

    def word(found: re.Match[str]) -> str:
        value = words.get(found[1])
        if value is None:
            known = ", ".join(f"{{{name}}}" for name, given in words.items() if given is not None)
            raise BadValue(f"--out {text}: {{{found[1]}}} is not a placeholder; use {known}")
        return re.sub(r"[^\w.-]+", "-", f"{value:g}" if isinstance(value, float) else str(value)).strip("-.")

    return re.sub(r"\{(\w*)\}", word, text)


def _check_signing(options: argparse.Namespace, out: Path) -> None:
    from imax_dist.output.image.sign import require_signable

    if options.sign is None or options.key is None:
        raise BadValue("--sign CERT and --key FILE belong together")
    require_signable(out, options.sign, options.key)


def _print_result(options: argparse.Namespace, out: Path, record: dict[str, Any], notes: list[str]) -> None:
    size = out.stat().st_size
    if options.json:
        print(json.dumps({"out": str(out), "bytes": size, **record, "notes": notes}))
        return
    width, height = record["trim_mm"]
    sheet = f"{record['paper']} {width:g} x {height:g} mm, bleed {record['bleed_mm']:g} mm"
    colours = (
        f"{record['dpi']:.4g} dpi, {record['bits']} bit {record['colour']} ({record['profile']['name']})"
    )
    print(f"{out}  {sheet}, {colours}, {file_size(size)}")
    for note in notes:
        print(f"  {note}")
