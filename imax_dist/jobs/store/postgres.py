"""A store in PostgreSQL: several drivers, services and hosts on one queue.

Writers do not wait for each other. So a revision is the number of the transaction that made a change, and a
reader asks next time for all that transactions made that were still open when it looked.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, exc, inspect, make_url, select, text, update

from imax_dist.errors import BadConfig, BadManifest, StoreUnavailable
from imax_dist.jobs.store.database import Database
from imax_dist.jobs.store.migrations import create, migrate
from imax_dist.jobs.store.tables import VERSION, jobs, meta
from imax_dist.wording import first_line

CONNECT_S = 10
CONNECTIONS = 8
SILENT_S = 20
ALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * SILENT_S,
}
"""A server whose packets are dropped is given up in seconds; by the system's own times it takes minutes."""
SETTINGS = "-c statement_timeout=60s -c lock_timeout=30s -c idle_in_transaction_session_timeout=60s"
MIGRATING = 0x494D4158
"""The advisory lock under which tables are made and migrated."""


class Postgres(Database):
    """The database at ``url``; its tables are made or migrated. Raises BadConfig, StoreUnavailable."""

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        self.name = self._url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
        with self.errors():
            self.engine = create_engine(
                self._url,
                connect_args=connect_arguments(self._url),
                pool_size=CONNECTIONS,
                pool_pre_ping=True,
                pool_recycle=300,
            )
            try:
                with self.writing() as connection:
                    self._prepare(connection)
            except BaseException:
                self.engine.dispose()
                raise

    def _prepare(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATING})
        if not inspect(connection).has_table(meta.name):
            create(connection)
        version = int(connection.execute(select(meta.c.version)).scalar_one())
        if version > VERSION:
            raise BadManifest(
                f"{self.name} is of version {version}, this program writes {VERSION}; use another database"
            )
        if version < VERSION:
            migrate(connection, version)
            connection.execute(update(meta).values(version=VERSION))
        revision = self.revision(connection)  # lower than before where the tables come from another server
        connection.execute(update(jobs).where(jobs.c.revision > revision).values(revision=revision))

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except exc.IntegrityError:
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            cause = first_line(error.orig if isinstance(error, exc.DBAPIError) and error.orig else error)
            raise StoreUnavailable(
                f"the database {self.name} cannot be used: {cause}; check that it runs, takes this user and "
                "has room, then run the same command again"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.errors(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    def now(self, connection: Connection) -> float:
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def revision(self, connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one())

    def horizon(self, connection: Connection) -> int:
        query = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
        return int(connection.execute(text(query)).scalar_one())

    def number(self, connection: Connection, count: int) -> int:
        change = update(meta).values(number=meta.c.number + count).returning(meta.c.number)
        return int(connection.execute(change).scalar_one()) - count + 1


def _checked(url: str) -> URL:
    if importlib.util.find_spec("psycopg") is None:
        raise BadConfig("--store postgresql://... needs psycopg: pip install 'imax-dist[postgres]'")
    try:
        made = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise BadConfig("--store is not a database URL; write postgresql://USER@HOST/DATABASE") from error
    if not made.database:
        raise BadConfig("--store names no database; write postgresql://USER@HOST/DATABASE")
    return made.set(drivername="postgresql+psycopg")


def connect_arguments(url: URL) -> dict[str, Any]:
    """What each connection begins with; what the URL itself says goes before: ``?keepalives_idle=60``.

    Its ``?options=-csearch_path%3Dposters`` are added to ours.
    """
    ours = {"connect_timeout": CONNECT_S, "application_name": "imax", **ALIVE}
    given = url.query.get("options")
    settings = f"{SETTINGS} {given}" if isinstance(given, str) else SETTINGS
    return {**{name: value for name, value in ours.items() if name not in url.query}, "options": settings}
