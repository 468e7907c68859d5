"""``imax status``: what became of every poster of a batch."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imax_dist.jobs.store import Row

LEAST_NOTE = 60
MOST_SHOWN = 200
"""Posters in the table, unless ``--limit`` says otherwise."""
STATES = ("queued", "running", "proofed", "done", "failed", "cancelled")
TELLING = ("running", "failed")
"""What is shown of a batch too long for the table."""


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "status", help="the state of a batch", description="Show the posters of a batch and their states."
    )
    add_place(parser, nargs="?")
    add = parser.add_argument
    add(
        "--state",
        action="append",
        choices=STATES,
        metavar="STATE",
        default=[],
        help=f"only {', '.join(STATES)}; repeatable",
    )
    add("--failed", action="append_const", dest="state", const="failed", help="the same as --state failed")
    add("--totals", action="store_true", help="only the number of posters in each state")
    add("--limit", type=int, metavar="N", help=f"posters in the table (default {MOST_SHOWN}; 0: all)")
    add("--verify", action="store_true", help="compare every finished poster with its hash")
    add("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def add_place(parser: argparse.ArgumentParser, *, nargs: Any) -> None:
    """A batch by its folder, or by its database."""
    parser.add_argument(
        "out", type=Path, nargs=nargs, metavar="DIR", help="the folder given to imax batch --out"
    )
    parser.add_argument(
        "--store", metavar="PLACE", help="the database of imax batch --store, in place of DIR"
    )


def place_of(options: argparse.Namespace) -> Path | str:
    """The folder or the database. Raises BadValue without either."""
    from imax_dist.errors import BadValue

    if options.store is None and options.out is None:
        raise BadValue("name the batch: its folder, or --store with its database")
    return options.out if options.store is None else str(options.store)


def run(options: argparse.Namespace) -> int:
    """Print the table; 76 if a poster failed, or with --verify is not what it was.

    Raises BadValue for a negative limit, or --verify without a folder.
    """
    from imax_dist.errors import BadValue, PartialBatch
    from imax_dist.jobs.control import all_rows, counts, damaged

    place, states = place_of(options), tuple(options.state)
    if options.limit is not None and options.limit < 0:
        raise BadValue(f"--limit {options.limit} must be 0 (all) or more")
    if options.verify and options.out is None:
        raise BadValue("--verify reads the posters; give their folder as well")
    found = counts(place)
    most = options.limit if options.limit is not None else 0 if options.json else MOST_SHOWN
    long = options.limit is None and most and sum(found.values()) > most
    shown = states or (TELLING if long else ())
    if options.totals:
        print(json.dumps({"counts": dict(found)}) if options.json else _counted(found))
    else:
        rows = all_rows(place, states=shown, limit=most or None)[: most or None]
        print_rows(rows, found, as_json=options.json)
    broken = damaged(options.out, all_rows(place, states=("done",))) if options.verify else {}
    for job_id, problem in broken.items():
        print(f"{job_id}: not the poster that was rendered: {problem}; run imax batch to make it again")
    return PartialBatch.exit_code if broken or found.get("failed") else 0


def print_end(rows: Sequence[Row], *, as_json: bool) -> int:
    """What became of a run's jobs; 76 if a poster failed."""
    from imax_dist.errors import PartialBatch

    counts = Counter(row.state_name for row in rows)
    short = as_json or len(rows) <= MOST_SHOWN
    print_rows(rows if short else [row for row in rows if row.failed][:MOST_SHOWN], counts, as_json=as_json)
    return PartialBatch.exit_code if counts["failed"] else 0


def print_rows(rows: Sequence[Row], counts: Mapping[str, int], *, as_json: bool) -> None:
    """The jobs as a table for people, or as JSON: ``{"counts": ..., "jobs": [...]}``; counts of all."""
    if as_json:
        print(json.dumps({"counts": dict(counts), "jobs": [row.as_json() for row in rows]}))
        return
    from imax_dist.pipeline.request import size_in_words

    width = max([len("poster"), *(len(row.id) for row in rows)])
    room = max(LEAST_NOTE, shutil.get_terminal_size((140, 24)).columns - width - 50)
    print(f"{'poster':<{width}}  {'state':<9}  {'size':>11}  {'tries':>5}  {'since':<12}  note")
    for row in rows:
        size = size_in_words(row.request)
        note = textwrap.shorten(row.note(), room, placeholder=" ...")
        columns = f"{row.state_name:<9}  {size:>11}  {row.attempts:>5}  {since(row.changed):<12}"
        print(f"{row.id:<{width}}  {columns}  {note}".rstrip())
    if len(rows) < sum(counts.values()):
        print(f"{len(rows)} of {sum(counts.values())} posters shown; --state and --limit choose others")
    print(_counted(counts))


def _counted(counts: Mapping[str, int]) -> str:
    """``3 done, 1 failed``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "no posters"


def since(moment: float) -> str:
    """``16:52:07`` of today, ``Nov 23 16:52`` of another day; local time."""
    when, today = datetime.fromtimestamp(moment).astimezone(), datetime.now().astimezone()
    return f"{when:%H:%M:%S}" if when.date() == today.date() else f"{when:%b %d %H:%M}"
