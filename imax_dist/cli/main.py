"""``imax VERB ...``: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import os
import select
import sys
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
    report,
    status,
    study,
    verify,
    view,
)
from imax_dist.errors import ImaxError
from imax_dist.version import __version__

VERBS = (
    generate,
    plan,
    launch,
    batch,
    status,
    queue,
    finish,
    verify,
    view,
    report,
    study,
    model,
    doctor,
)
INTERRUPTED = 130
READER_GONE = 141
INTERNAL = 70


class FrontPage(argparse.ArgumentParser):
    """The first help page: one line a verb, and nothing that pushes them off a small screen."""

    def format_help(self) -> str:
        (verbs,) = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        lines = [f"  {verb.dest:<10}{verb.help}" for verb in verbs._choices_actions]
        options = "  --version shows the version, VERB --help the options of a verb."
        return "\n".join(
            [self.format_usage(), f"{self.description}", "", *lines, "", options, f"{self.epilog}", ""]
        )


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; importing this imports no torch."""
    parser = FrontPage(
        prog="imax",
        description="Posters beyond a model's native size (I-Max), on one GPU or many.",
        epilog='  Start with: imax generate "a red sun over the sea" --out sea.png',
    )
    parser.add_argument("--version", action="version", version=f"imax-dist {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", required=True, parser_class=argparse.ArgumentParser
    )
    for module in VERBS:
        module.add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code (GUIDE, "Output and exit codes")."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except ImaxError as error:
        _show_where(options)
        if not error.told:
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
