"""Jobs and their states as a store has them, read without touching it.

Looking takes no lock that a batch needs, writes no file and works on a read-only folder.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from imax_dist.config import to_mapping
from imax_dist.errors import BadManifest, BadValue, CannotWrite, MissingInput
from imax_dist.jobs.job import Job, request_of
from imax_dist.jobs.state import (
    Done,
    Failed,
    Queued,
    Running,
    State,
    attempts_of,
    from_record,
    name_of,
    to_record,
)
from imax_dist.output.own_files import is_file
from imax_dist.wording import duration, file_size

FILE = "batch.sqlite"
VERSION = 2
READABLE = (1, 2)
BUSY_S = 30.0
LOOKS = 5
"""Times a store that changes while it is read is read again."""
Value = TypeVar("Value")


class Row(NamedTuple):
    """A job, its state, and how far it is."""

    job: Job
    state: State
    changed: float
    """Seconds since the epoch when it came into this state."""
    stage: str
    step: int
    steps: int
    cancelling: bool = False
    """Somebody has cancelled it, and it is still running."""

    @property
    def state_name(self) -> str:
        return name_of(self.state)

    @property
    def failed(self) -> bool:
        return isinstance(self.state, Failed)

    @property
    def attempts(self) -> int:
        return attempts_of(self.state)

    def note(self) -> str:
        """What there is to say about the state, for people."""
        if isinstance(self.state, Failed):
            return self.state.message
        if isinstance(self.state, Done):
            return f"{duration(self.state.seconds)}, {file_size(self.state.bytes)}"
        if isinstance(self.state, Running):
            place = f"{self.state.gang}: {self.stage} {self.step}/{self.steps}"
            return f"{place}; stops after this step" if self.cancelling else place
        return self.state.after if isinstance(self.state, Queued) else ""

    def as_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "id": self.job.id,
            "state": self.state_name,
            "attempts": self.attempts,
            "request": to_mapping(self.job.request),
            "cancelling": self.cancelling,
            "detail": to_record(self.state),
            "changed": self.changed,
            "progress": {"stage": self.stage, "step": self.step, "steps": self.steps},
        }


def store_path(out: Path, shard: str | None = None) -> Path:
    """``batch.sqlite``, or one file a shard of a manifest that several hosts share."""
    name = FILE if shard is None else f"batch-{shard.replace('/', '-of-')}.sqlite"
    return out / name


def store_paths(out: Path) -> list[Path]:
    """The stores of a folder. Raises MissingInput if no batch was ever started there."""
    found = sorted(out.glob("batch*.sqlite"))
    if not found:
        raise MissingInput(f"{out} holds no batch; start one with: imax batch MANIFEST --out {out}")
    return found


def read_store(path: Path, read: Callable[[sqlite3.Connection], Value]) -> Value:
    """What ``read`` finds in the store at ``path``, all of one moment.

    A store that no process has open is one file and is read as such; else its write-ahead log is read, too.
    Raises BadManifest, BadValue or CannotWrite.
    """
    if not is_file(path):
        raise BadValue(f"{path} is a link or no file, and is not read; remove it")
    for _ in range(LOOKS):
        before = _stamp(path)
        with clear_errors(path):
            found = _read_once(path, read)
        if _stamp(path) == before:
            return found
    return found


def rows_in(database: sqlite3.Connection, path: Path) -> list[Row]:
    """Every job, in the order they are to be taken."""
    found = database.execute(
        "SELECT id, position, priority, fingerprint, request, state, detail, changed, stage, step, steps, "
        "cancel FROM jobs ORDER BY priority DESC, position, id"
    )
    return [_row(columns, path) for columns in found]


def states_in(database: sqlite3.Connection) -> dict[str, State]:
    """Every job's state by its id, in the same order."""
    found = database.execute("SELECT id, state, detail FROM jobs ORDER BY priority DESC, position, id")
    return {str(job): _state(str(name), str(detail)) for job, name, detail in found}


def require_version(database: sqlite3.Connection, path: Path) -> None:
    """Raise BadManifest for the store of a later program, or none of this program."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, *READABLE):
        raise BadManifest(
            f"{path} is of version {version}, this program writes {VERSION}; use another folder"
        )


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say about a store into a sentence."""
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.OperationalError | OSError):
            raise CannotWrite(
                f"the batch's database {path} cannot be used: {error}; check that its disk has room and is "
                f"writable, then run the same command again"
            ) from error
        raise BadManifest(f"{path} is not an imax batch database: {error}; move it away") from error


def _read_once(path: Path, read: Callable[[sqlite3.Connection], Value]) -> Value:
    place = path.absolute().as_uri()
    if not _log(path):
        return _ask(f"{place}?mode=ro&immutable=1", path, read)
    try:
        return _ask(f"{place}?mode=ro", path, read)
    except sqlite3.OperationalError:
        with tempfile.TemporaryDirectory(
            prefix="imax-status-"
        ) as folder:  # a read-only disk, and a log to be read
            for name in (path.name, f"{path.name}-wal"):
                shutil.copyfile(path.with_name(name), Path(folder) / name)
            return _ask((Path(folder) / path.name).as_uri(), path, read)


def _ask(place: str, path: Path, read: Callable[[sqlite3.Connection], Value]) -> Value:
    database = sqlite3.connect(place, timeout=BUSY_S, isolation_level=None, uri=True)
    try:
        require_version(database, path)
        return read(database)
    finally:
        database.close()


def _log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return is_file(log) and log.stat().st_size > 0


def _stamp(path: Path) -> tuple[int, int, int, bool]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, _log(path)


def _row(found: tuple[Any, ...], path: Path) -> Row:
    job_id, position, priority, fingerprint, request, state, detail, changed, stage, step, steps, cancel = (
        found
    )
    job = Job(
        id=str(job_id),
        request=request_of(json.loads(str(request)), where=f"{path}: job {job_id}"),
        priority=int(priority),
        position=int(position),
        fingerprint=str(fingerprint),
    )
    kept = _state(str(state), str(detail))
    return Row(job, kept, float(changed), str(stage), int(step), int(steps), bool(cancel))


def _state(name: str, detail: str) -> State:
    """Version 1 called attempts without progress fruitless."""
    return from_record(name, json.loads(detail.replace('"fruitless"', '"attempts_without_progress"')))
