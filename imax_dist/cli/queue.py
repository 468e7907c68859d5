"""``imax retry``, ``cancel``, ``approve``: change what is queued in a batch."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

CHANGES = "change what is queued in a batch"


@dataclass(frozen=True)
class Verb:
    """A command of three: what it says it did, and whether it acts on all posters without ids."""

    name: str
    description: str
    did: str
    needs_ids: bool = False


VERBS = (
    Verb(
        "retry",
        "Queue failed and cancelled posters (all, or those named) for the running batch, or the next.",
        "queued again",
    ),
    Verb(
        "cancel",
        "Cancel posters by id. A running batch stops them after their current step and keeps a checkpoint.",
        "cancelled",
        needs_ids=True,
    ),
    Verb(
        "approve",
        "Approve proofs (all, or those named): the running batch, or the next, renders their posters.",
        "approved",
    ),
)


def add_parser(verbs: Any) -> None:
    """Declare the commands and their options."""
    for verb in VERBS:
        parser = verbs.add_parser(verb.name, help=CHANGES, description=verb.description)
        parser.add_argument(
            "words",
            nargs="*",
            metavar="DIR|ID",
            help="the folder given to imax batch --out, and posters by id",
        )
        parser.add_argument(
            "--store", metavar="PLACE", help="the database given to imax batch --store, in place of DIR"
        )
        parser.add_argument("--json", action="store_true", help="the ids as JSON on stdout")
        parser.set_defaults(run=run, changes=verb)


def run(options: argparse.Namespace) -> int:
    """Change the queue and say which posters were changed."""
    from imax_dist.jobs import control
    from imax_dist.output.own_files import composed

    verb: Verb = options.changes
    if options.store is None and not options.words:
        options.parser.error("name the batch: its folder, or --store with its database")
    place, *ids = options.words if options.store is None else [options.store, *options.words]
    if verb.needs_ids and not ids:
        options.parser.error("name the posters by their ids")
    act = {"retry": control.retry, "cancel": control.cancel, "approve": control.approve}[verb.name]
    done = act(place, [composed(each) for each in ids])
    print(json.dumps(done) if options.json else f"{verb.did}: {', '.join(done) or 'none'}")
    return 0
