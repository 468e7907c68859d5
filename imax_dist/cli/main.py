"""``imax COMMAND ...``: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
import traceback
from collections.abc import Sequence

from imax_dist.cli import (
    batch,
    doctor,
    finish,
    generate,
    launch,
    model,
    plan,
    queue,
    redo,
    reference,
    report,
    serve,
    status,
    store,
    study,
    upscale,
    verify,
    view,
)
from imax_dist.cli.parser import FrontPage, VerbParser
from imax_dist.errors import ImaxError
from imax_dist.version import __version__

VERBS = (
    generate,
    upscale,
    redo,
    plan,
    launch,
    batch,
    serve,
    status,
    store,
    queue,
    finish,
    verify,
    view,
    report,
    study,
    model,
    doctor,
    reference,
)
INTERRUPTED = 130
READER_GONE = 141
INTERNAL = 70


def build_parser() -> FrontPage:
    """The whole command line; importing this imports no torch."""
    parser = FrontPage(
        prog="imax",
        description="Posters beyond a model's native size (I-Max), on one GPU or many.",
        epilog='  Start: imax generate "a red sun" --out sea.png; imax help COMMAND says more',
    )
    parser.add_argument("--version", action="version", version=f"imax-dist {__version__}")
    parser.set_defaults(front_page=parser)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", parser_class=VerbParser)
    for module in VERBS:
        module.add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code (GUIDE, "Output and exit codes")."""
    began = time.perf_counter() - (_process_age_s() if arguments is None else 0.0)
    options = _parsed(arguments)
    options.began = began
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except ImaxError as error:
        _show_where(options)
        if not error.already_reported:
            print(f"imax {options.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"imax {options.verb}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            return READER_GONE
        _show_where(options)
        kind = type(error).__name__
        print(f"imax {options.verb}: internal error: {kind}: {error} (--debug shows where)", file=sys.stderr)
        return INTERNAL
    return code


def _process_age_s() -> float:
    """Seconds since this process was started: the interpreter and its imports belong to a command's time.

    0 where the system does not say (it does on Linux, to 10 ms).
    """
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        return 0.0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; where ``--help`` has said all there is, SystemExit, also if its reader has left."""
    try:
        options: argparse.Namespace = build_parser().parse_args(arguments)
    except SystemExit:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            if _reader_gone():
                raise SystemExit(READER_GONE) from None
            raise
        raise
    return options


def _reader_gone() -> bool:
    """Whether nobody reads stdout any more (``imax ... | head``), no error; the rest goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _show_where(options: argparse.Namespace) -> None:
    """With --debug: the traceback of the error in hand, above its sentence."""
    if getattr(options, "debug", False):
        traceback.print_exc()
