"""From the tables of an earlier version to those of now, one step a version."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.schema import CreateColumn, CreateIndex

from imax_dist.jobs.store.tables import VERSION, jobs, meta, metadata

ADDED_IN_3 = ("number", "created", "revision", "driver", "owner", "key", "webhook")
Step = Callable[[Connection], None]


def create(connection: Connection) -> None:
    """All tables of now, in an empty database."""
    metadata.create_all(connection)
    if connection.execute(select(func.count()).select_from(meta)).scalar_one() == 0:
        connection.execute(insert(meta).values(version=VERSION, revision=0, number=0))


def migrate(connection: Connection, version: int) -> None:
    """Bring tables of ``version`` to those of now, in the transaction of ``connection``."""
    for number in range(version + 1, VERSION + 1):
        STEPS[number](connection)


def _words(connection: Connection) -> None:
    """Version 1 called attempts without progress fruitless."""
    connection.execute(
        text(
            """UPDATE jobs SET detail = replace(detail, '"fruitless"', '"attempts_without_progress"')
            WHERE detail LIKE '%"fruitless"%'"""
        )
    )


def _many_drivers(connection: Connection) -> None:
    """Numbers, revisions, drivers, owners, keys, webhooks; only SQLite had versions before."""
    _add_columns(connection, ADDED_IN_3)
    connection.execute(text("UPDATE jobs SET number = rowid, created = changed"))
    connection.execute(text("DROP INDEX IF EXISTS jobs_by_state"))
    connection.execute(text("DROP TABLE IF EXISTS driver"))
    _new_indexes(connection)
    create(connection)
    connection.execute(text("UPDATE meta SET number = (SELECT coalesce(max(number), 0) FROM jobs)"))


def _new_indexes(connection: Connection) -> None:
    """A page of one state, the newest first, in place of sorting all that are in it."""
    for index in sorted(jobs.indexes, key=lambda index: str(index.name)):
        connection.execute(CreateIndex(index, if_not_exists=True))


def _what_was_asked(connection: Connection) -> None:
    """Whether a submission asked for its proof, and whose the uploads are."""
    _add_columns(connection, ("approval",))
    create(connection)


def _add_columns(connection: Connection, names: Sequence[str]) -> None:
    for name in names:
        definition = CreateColumn(jobs.c[name]).compile(dialect=connection.dialect)
        connection.execute(text(f"ALTER TABLE jobs ADD COLUMN {definition}"))


STEPS: dict[int, Step] = {2: _words, 3: _many_drivers, 4: _new_indexes, 5: _what_was_asked}
