"""``imax store backup|restore|prune``: the queue of a batch as a thing to be looked after."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from imax_dist.cli.status import add_place, place_of
from imax_dist.wording import plural


def add_parser(verbs: Any) -> None:
    """Declare the command and its options."""
    parser = verbs.add_parser(
        "store",
        help="back up, restore or prune a queue",
        description="Copy a batch's queue to a file or back, or remove what is old.",
    )
    acts = parser.add_subparsers(dest="act", metavar="ACTION", required=True)
    backup = acts.add_parser("backup", help="copy a queue to a file; batches may run meanwhile")
    restore = acts.add_parser("restore", help="copy a backup into an empty queue")
    for act in (backup, restore):
        act.add_argument("file", type=Path, metavar="FILE", help="the backup: an SQLite database")
        add_place(act, nargs="?")
    prune = acts.add_parser("prune", help="remove what is older than given")
    add_place(prune, nargs="?")
    for name, what in (
        ("posters", "folders of ended posters"),
        ("checkpoints", "checkpoints of failed and cancelled posters"),
        ("events", "changes of state in the store"),
    ):
        prune.add_argument(
            f"--{name}", default="", metavar="TIME", help=f"keep {what} this long: 12h, 30d, 8w"
        )
    for act in (backup, restore, prune):
        act.add_argument("--json", action="store_true", help="result as JSON on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it to every store of the batch, and say how much it was."""
    return {"backup": _backup, "restore": _restore, "prune": _prune}[options.act](options)


def _backup(options: argparse.Namespace) -> int:
    from imax_dist.jobs.store import open_store
    from imax_dist.jobs.store.backup import back_up

    with closing(open_store(_one_store(options, must_exist=True))) as store:
        count = back_up(store.database, options.file)
    return _print_result(options, {"jobs": count}, f"{options.file}: {plural(count, 'poster')}")


def _restore(options: argparse.Namespace) -> int:
    from imax_dist.jobs.store import open_store
    from imax_dist.jobs.store.backup import restore

    with closing(open_store(_one_store(options, must_exist=False))) as store:
        count = restore(options.file, store.database)
        name = store.name
    return _print_result(options, {"jobs": count}, f"{name}: {plural(count, 'poster')}")


def _prune(options: argparse.Namespace) -> int:
    from imax_dist.errors import BadValue
    from imax_dist.jobs.retention import prune
    from imax_dist.jobs.settings import Keep
    from imax_dist.jobs.store import open_store

    keep = Keep(options.posters, options.checkpoints, options.events)
    if not any(vars(keep).values()):
        raise BadValue("nothing to remove: give --posters, --checkpoints or --events a time to keep them")
    if options.out is None:
        raise BadValue("name the folder of the posters as well")
    with closing(open_store(_one_store(options, must_exist=True))) as store:
        gone = prune(store, options.out, keep)
    counts = (plural(gone.jobs, "poster"), f"checkpoints of {gone.checkpoints}", plural(gone.events, "event"))
    text = f"{', '.join(counts)} gone"
    return _print_result(options, gone._asdict(), "\n".join([*gone.problems, text]))


def _one_store(options: argparse.Namespace, *, must_exist: bool) -> Path | str:
    """The database, or the one file of a folder. Raises BadValue for shards."""
    from imax_dist.errors import BadValue
    from imax_dist.jobs.store.files import store_path, store_paths
    from imax_dist.jobs.store.store import is_url

    place = place_of(options)
    if options.store is not None:
        return place if is_url(place) else Path(place)
    if not must_exist:
        return store_path(Path(place))
    found = store_paths(Path(place))
    if len(found) > 1:
        raise BadValue(f"{place} holds {len(found)} shards; name one with --store FILE")
    return found[0]


def _print_result(options: argparse.Namespace, result: dict[str, Any], text: str) -> int:
    print(json.dumps(result) if options.json else text)
    return 0
