"""A store in a file: SQLite, with a write-ahead log on a disk of this machine, else with a journal."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, bindparam, create_engine, event, exc, select, text, update
from sqlalchemy.pool import QueuePool

from imax_dist.errors import BadManifest, BadValue, CannotWrite
from imax_dist.jobs.store.database import WRITES, Database
from imax_dist.jobs.store.file_system import mount_of, require_locks
from imax_dist.jobs.store.migrations import create, migrate
from imax_dist.jobs.store.tables import VERSION, meta

BUSY_S = 30.0
CONNECTIONS = 8
NEXT_REVISION = update(meta).values(revision=meta.c.revision + 1).returning(meta.c.revision)
NEXT_NUMBERS = update(meta).values(number=meta.c.number + bindparam("count")).returning(meta.c.number)


class Sqlite(Database):
    """The file at ``path``, made if it is not there. Raises BadValue, BadManifest, CannotWrite."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        self.path = path
        self.name = str(path)
        self._writer = threading.Lock()
        if path.is_symlink():
            raise BadValue(f"{path} is a link, and a batch does not write through links; remove it")
        if path.is_dir():
            raise BadValue(
                f"{path} is a folder, and a queue is a file; name one in it: {path / 'batch.sqlite'}"
            )
        with self.errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            mount = mount_of(path.parent)
            require_locks(path, mount)
            place = f"{path.absolute().as_uri()}?mode=rwc" + (f"&vfs={vfs}" if vfs else "")
            self.shared_memory = self._choose_journal(
                place, on_shared_disk=mount is not None and mount.shared
            )
            self.engine = engine(lambda: connect(place))
            try:
                with self.writing() as connection:
                    _prepare(connection, path)
            except BaseException:
                self.engine.dispose()
                raise

    def _choose_journal(self, place: str, *, on_shared_disk: bool) -> bool:
        """Whether there is a write-ahead log; a shared disk, or one without shared memory, has a journal."""
        wanted = "TRUNCATE" if on_shared_disk else "WAL"
        with closing(sqlite3.connect(place, timeout=BUSY_S, isolation_level=None, uri=True)) as database:
            if on_shared_disk:  # a log that came from another disk is read without shared memory, and ended
                database.execute("PRAGMA locking_mode=EXCLUSIVE")
            mode = _journal_mode(database, wanted)
            if mode not in ("wal", "truncate"):
                mode = _journal_mode(database, "TRUNCATE")
        if on_shared_disk and mode == "wal":
            raise CannotWrite(
                f"the batch's database {self.path} is on a shared disk, and another process has it open "
                "with a write-ahead log; stop that process first, then run the same command again"
            )
        return mode == "wal"

    @contextmanager
    def errors(self) -> Iterator[None]:
        with clear_errors(self.path):
            yield

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One thread after the other: SQLite lets a second one sleep and ask again, up to 0.1 s at a time."""
        with self._writer, super().writing() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        del connection
        return time.time()

    def revision(self, connection: Connection) -> int:
        return int(connection.execute(NEXT_REVISION).scalar_one())

    def horizon(self, connection: Connection) -> int:
        return int(connection.execute(select(meta.c.revision)).scalar_one()) + 1

    def number(self, connection: Connection, count: int) -> int:
        return int(connection.execute(NEXT_NUMBERS, {"count": count}).scalar_one()) - count + 1


def engine(connect: Callable[[], sqlite3.Connection]) -> Engine:
    """Connections on which a transaction begins when something is first asked or written."""
    made = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=CONNECTIONS)

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


def connect(place: str) -> sqlite3.Connection:
    """A connection that leaves transactions to its user; ``place`` is a file URI."""
    made = sqlite3.connect(place, timeout=BUSY_S, isolation_level=None, uri=True, check_same_thread=False)
    try:
        made.execute("PRAGMA synchronous=FULL")
    except BaseException:
        made.close()
        raise
    return made


def require_version(connection: Connection, path: Path) -> int:
    """The version of the tables; 0 without any. Raises BadManifest for those of a later program."""
    version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if version > VERSION:
        raise BadManifest(
            f"{path} is of version {version}, this program writes {VERSION}; use another folder"
        )
    return version


def _prepare(connection: Connection, path: Path) -> None:
    version = require_version(connection, path)
    if version == VERSION:
        return
    if version == 0:
        create(connection)
    else:
        migrate(connection, version)
    connection.execute(text(f"PRAGMA user_version={VERSION}"))


def _journal_mode(database: sqlite3.Connection, wanted: str) -> str:
    """The journal after asking for ``wanted``; of several that ask at once SQLite lets one alone wait."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            (mode,) = database.execute(f"PRAGMA journal_mode={wanted}").fetchone()
            return str(mode)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say about a store into a sentence of BadManifest or CannotWrite."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except (exc.DBAPIError, sqlite3.DatabaseError, OSError) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        if isinstance(cause, sqlite3.OperationalError | OSError):
            raise CannotWrite(
                f"the batch's database {path} cannot be used: {cause}; check that its disk has room and is "
                f"writable, then run the same command again"
            ) from error
        raise BadManifest(f"{path} is not an imax batch database: {cause}; move it away") from error
