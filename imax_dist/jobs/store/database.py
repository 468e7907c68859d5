"""One database under a store: connections, transactions, what is different between SQLite and PostgreSQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import Table

WRITES = "imax_writes"
"""The execution option of a connection that is going to write."""
CHUNK = 500
"""Values in one statement; SQLite allows 32 766, older ones 999."""


class Database(ABC):
    """An open database whose tables are those of now."""

    engine: Engine
    name: str
    """For sentences; holds no password."""
    shared_memory: bool = True
    """Whether SQLite has its write-ahead log."""

    @abstractmethod
    def errors(self) -> AbstractContextManager[None]:
        """Turns what the database's library raises into a sentence of ours."""

    @abstractmethod
    def now(self, connection: Connection) -> float:
        """Seconds since the epoch, by the clock that all of the store's times are of."""

    @abstractmethod
    def revision(self, connection: Connection) -> int:
        """The revision of what this transaction changes."""

    @abstractmethod
    def horizon(self, connection: Connection) -> int:
        """Every change below this revision is visible to this transaction, and no later one will be below."""

    @abstractmethod
    def number(self, connection: Connection, count: int) -> int:
        """The first of ``count`` numbers for new jobs."""

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """All that is read is of one moment."""
        with self.errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """All or nothing."""
        with self.errors(), self.engine.connect() as connection:
            connection = connection.execution_options(**{WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close every connection."""
        with self.errors():
            self.engine.dispose()


def insert_new(connection: Connection, table: Table) -> Insert:
    """Insert rows whose primary key is not there yet, and leave those that are."""
    made = _insert(connection, table)
    return made.on_conflict_do_nothing(index_elements=[column.name for column in table.primary_key])


def upsert(connection: Connection, table: Table, keep: set[str]) -> Insert:
    """Insert rows, or put them in the place of those with the same primary key; ``keep`` stays as it was."""
    made = _insert(connection, table)
    keys = [column.name for column in table.primary_key]
    new = {
        column.name: made.excluded[column.name]
        for column in table.columns
        if column.name not in {*keys, *keep}
    }
    return made.on_conflict_do_update(index_elements=keys, set_=new)


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
