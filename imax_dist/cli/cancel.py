"""``imax cancel``: posters that shall not be made after all."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "cancel",
        help="do not make these posters",
        description="Cancel posters by id; a running batch stops them after their step, with a checkpoint.",
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder given to imax batch --out")
    parser.add_argument("ids", nargs="+", metavar="ID", help="posters by id")
    parser.add_argument("--json", action="store_true", help="the ids as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Say which posters were cancelled."""
    from imax_dist.jobs.control import cancel

    ids = cancel(options.out, options.ids)
    print(json.dumps(ids) if options.json else f"cancelled: {', '.join(ids) or 'none'}")
    return 0
