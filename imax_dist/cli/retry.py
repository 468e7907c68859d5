"""``imax retry``: failed and cancelled posters go back into the queue."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "retry",
        help="queue failed posters again",
        description="Failed and cancelled posters (all, or those named) go into the next imax batch again.",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder given to imax batch --out")
    parser.add_argument("ids", nargs="*", metavar="ID", help="posters by id")
    parser.add_argument("--json", action="store_true", help="the ids as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Say which posters were queued again."""
    from imax_dist.jobs.control import retry

    ids = retry(options.out, options.ids)
    print(json.dumps(ids) if options.json else f"queued again: {', '.join(ids) or 'none'}")
    return 0
