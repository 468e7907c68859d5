"""``imax status``: what became of every poster of a batch."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imax_dist.jobs.store import Row

LEAST_NOTE = 60


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "status", help="the state of a batch", description="Every poster of a batch folder and its state."
    )
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder given to imax batch --out")
    parser.add_argument("--verify", action="store_true", help="compare every finished poster with its hash")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table; 76 if a poster failed, or with --verify is not what it was."""
    from imax_dist.errors import PartialBatch
    from imax_dist.jobs.control import all_rows, damaged

    rows = all_rows(options.out)
    print_rows(rows, as_json=options.json)
    broken = damaged(options.out, rows) if options.verify else {}
    for job_id, problem in broken.items():
        print(f"{job_id}: not the poster that was rendered: {problem}; run imax batch to make it again")
    return PartialBatch.exit_code if broken or any(row.failed for row in rows) else 0


def print_rows(rows: Sequence[Row], *, as_json: bool) -> None:
    """The jobs as a table for people, or as JSON: ``{"counts": ..., "jobs": [...]}``."""
    counts = dict(Counter(row.state_name for row in rows))
    if as_json:
        print(json.dumps({"counts": counts, "jobs": [row.as_json() for row in rows]}))
        return
    width = max([len("poster"), *(len(row.job.id) for row in rows)])
    room = max(LEAST_NOTE, shutil.get_terminal_size((140, 24)).columns - width - 50)
    print(f"{'poster':<{width}}  {'state':<9}  {'size':>11}  {'tries':>5}  {'since':<12}  note")
    for row in rows:
        size = row.job.request.size or "2x native"
        note = textwrap.shorten(row.note(), room, placeholder=" ...")
        columns = f"{row.state_name:<9}  {size:>11}  {row.attempts:>5}  {since(row.changed):<12}"
        print(f"{row.job.id:<{width}}  {columns}  {note}".rstrip())
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "no posters")


def since(moment: float) -> str:
    """``16:52:07`` of today, ``Nov 23 16:52`` of another day; local time."""
    when, today = datetime.fromtimestamp(moment).astimezone(), datetime.now().astimezone()
    return f"{when:%H:%M:%S}" if when.date() == today.date() else f"{when:%b %d %H:%M}"
