"""``imax finish``: a print file from a render."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from imax_dist.cli.request_options import add_paper_options
from imax_dist.config import from_mapping
from imax_dist.errors import BadValue
from imax_dist.wording import file_size

CHOICES = (
    "paper", "dpi", "bleed", "landscape", "bits", "icc", "intent", "output_intent", "scale", "cut",
    "crop_marks", "quality", "lossless", "black_point_compensation",
)  # fmt: skip
"""Options that are fields of FinishSettings."""


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "finish",
        help="make a print file",
        description="Make a print file (TIFF, PNG, JPEG, PDF) from a rendered poster. Without --paper the "
        "sheet is the one the poster was rendered for; without --dpi its own pixels are taken.",
    )
    parser.add_argument("poster", type=Path, help="tif or png made by `imax generate` or `imax batch`")
    parser.add_argument("--to", metavar="KIND", help="pdf (default), tif, png, jpg")
    parser.add_argument("--out", type=Path, help="file to write (default: POSTER-print.KIND)")
    add_paper_options(parser)
    _add_colour_options(parser)
    _add_page_options(parser)
    parser.add_argument("--sign", type=Path, metavar="CERT", help="add C2PA, signed by this chain (PEM)")
    parser.add_argument("--key", type=Path, help="private key for --sign (PEM)")
    parser.add_argument("--json", action="store_true", help="result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)


def _add_colour_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bits", type=int, help="8 or 16 a channel (default: what picture and file have)")
    parser.add_argument("--icc", metavar="FILE", help="convert to this RGB or CMYK profile (default: sRGB)")
    parser.add_argument("--intent", help="relative (default), perceptual, saturation, absolute")
    parser.add_argument(
        "--no-black-point",
        dest="black_point_compensation",
        action="store_false",
        default=None,
        help="without black-point compensation",
    )
    parser.add_argument(
        "--background", metavar="#RRGGBB", help="what transparent parts are laid on (default: white)"
    )
    parser.add_argument("--quality", type=int, help="of JPEG, alone or in a PDF (default 95)")


def _add_page_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", metavar="HOW", help="lanczos, realesrgan-x4plus, or a .safetensors")
    parser.add_argument("--cut", action="store_true", default=None, help="allow cutting to another shape")
    parser.add_argument("--crop-marks", action="store_true", default=None, help="PDF: marks around the trim")
    parser.add_argument("--lossless", action="store_true", default=None, help="PDF: no JPEG")
    parser.add_argument("--output-intent", metavar="FILE", help="PDF: the printing condition's ICC profile")


def run(options: argparse.Namespace) -> int:
    """Finish one file and say what was done."""
    from imax_dist.output.image.finish import check, finish, inherit
    from imax_dist.output.image.reader import WHITE, open_picture, parse_colour
    from imax_dist.output.image.settings import FinishSettings

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
    finished = finish(picture, out, inherit(settings, picture.recipe))
    if options.sign is not None:
        from imax_dist.output.image.sign import sign

        sign(out, options.sign, options.key)
    notes = [
        *finished.notes,
        *([] if picture.recipe else ["the picture carries no recipe, nor will the print"]),
    ]
    _tell(options, out, finished.record, notes)
    return 0


def _target(options: argparse.Namespace) -> Path:
    """The file to write. Raises BadValue where --to and --out contradict each other."""
    from imax_dist.output.image.settings import kind_of

    poster: Path = options.poster
    named = poster.with_name(f"{poster.stem}-print.{(options.to or 'pdf').lower()}")
    if options.out is None:
        return named
    out: Path = options.out
    if options.to is not None and kind_of(named) != kind_of(out):
        raise BadValue(f"--to {options.to} and --out {out} contradict each other; omit --to")
    return out


def _check_signing(options: argparse.Namespace, out: Path) -> None:
    from imax_dist.output.image.sign import require_signable

    if options.sign is None or options.key is None:
        raise BadValue("--sign CERT and --key FILE belong together")
    require_signable(out, options.sign, options.key)


def _tell(options: argparse.Namespace, out: Path, record: dict[str, Any], notes: list[str]) -> None:
    size = out.stat().st_size
    if options.json:
        print(json.dumps({"out": str(out), "bytes": size, **record, "notes": notes}))
        return
    width, height = record["trim_mm"]
    sheet = f"{record['paper']} {width:g} x {height:g} mm, bleed {record['bleed_mm']:g} mm"
    colours = f"{record['dpi']:g} dpi, {record['bits']} bit {record['colour']} ({record['profile']['name']})"
    print(f"{out}  {sheet}, {colours}, {file_size(size)}")
    for note in notes:
        print(f"  {note}")
