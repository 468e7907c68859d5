"""A store copied whole: to a file for safe keeping, back, and from one kind of database to the other."""

from __future__ import annotations

import os
import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update

from imax_dist.errors import BadValue, MissingInput
from imax_dist.jobs.store.database import Database
from imax_dist.jobs.store.sqlite import Sqlite
from imax_dist.jobs.store.tables import events, jobs, meta, tokens, uploads, webhooks
from imax_dist.output.own_files import is_file

COPIED = (jobs, events, tokens, webhooks, uploads)
AT_ONCE = 1000


def back_up(source: Database, file: Path) -> int:
    """Write all of a store, as it is at one moment, to ``file``; how many jobs. Drivers may work meanwhile.

    Raises BadValue if the file exists, CannotWrite if it cannot be written.
    """
    if file.exists() or file.is_symlink():
        raise BadValue(f"{file} exists; name another file")
    unfinished = file.with_name(f".{file.stem}-{secrets.token_hex(6)}.sqlite")
    try:
        with closing(Sqlite(unfinished)) as target:
            count = _copy(source, target)
        os.replace(unfinished, file)
    finally:
        for path in file.parent.glob(f"{unfinished.name}*"):
            path.unlink()
    return count


def restore(file: Path, target: Database) -> int:
    """Put what ``back_up`` has written into an empty store; how many jobs.

    What was running then is queued by the next driver. Raises MissingInput, BadManifest, BadValue.
    """
    if not is_file(file):
        raise MissingInput(f"{file} does not exist or is not a file")
    with closing(Sqlite(file)) as source:
        return _copy(source, target)


def _copy(source: Database, target: Database) -> int:
    with source.reading() as found, target.writing() as made:
        held = int(made.execute(select(func.count()).select_from(jobs)).scalar_one())
        if held:
            raise BadValue(f"{target.name} holds {held} jobs; a backup is put into an empty store only")
        fresh = {"driver": None, "revision": target.revision(made)}
        for table in COPIED:
            rows = found.execution_options(stream_results=True).execute(select(table)).mappings()
            for some in rows.partitions(AT_ONCE):
                changed = fresh if table is jobs else {}
                made.execute(insert(table), [{**row, **changed} for row in some])
        number = found.execute(select(meta.c.number)).scalar_one()
        made.execute(update(meta).values(number=number))
        _continue_numbers(made)
        return int(made.execute(select(func.count()).select_from(jobs)).scalar_one())


def _continue_numbers(made: Connection) -> None:
    """PostgreSQL gives numbers from a sequence, which rows put in with their numbers do not move."""
    if made.dialect.name != "postgresql":
        return
    for table in (events, webhooks):
        highest: Any = select(func.coalesce(func.max(table.c.number), 0) + 1)
        sequence = text("SELECT setval(pg_get_serial_sequence(:name, 'number'), :next, false)")
        made.execute(sequence, {"name": table.name, "next": made.execute(highest).scalar_one()})
