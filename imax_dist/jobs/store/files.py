"""Stores in files: where they lie, and how they are read without touching them.

Looking takes no lock that a batch needs, writes no file and works on a read-only folder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, exc

from imax_dist.errors import BadValue, MissingInput
from imax_dist.jobs.store.file_system import mount_of
from imax_dist.jobs.store.sqlite import clear_errors, connect, engine, require_version
from imax_dist.output.own_files import is_file

FILE = "batch.sqlite"
LOOKS = 5
"""Times a store that changes while it is read is read again."""
LOGS = ("-wal", "-journal")
Value = TypeVar("Value")


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


def read_store(path: Path, read: Callable[[Connection], Value]) -> Value:
    """What ``read`` finds in the store at ``path``, all of one moment.

    A store that no process has open is one file and is read as such; else its log or journal is read, too.
    Raises BadManifest, BadValue or CannotWrite.
    """
    if not is_file(path):
        raise BadValue(f"{path} is a link or not a regular file; it was not read; remove it")
    for _ in range(LOOKS):
        before = _stamp(path)
        with clear_errors(path):
            found = _read_once(path, read)
        if _stamp(path) == before:
            return found
    return found


def _read_once(path: Path, read: Callable[[Connection], Value]) -> Value:
    place = path.absolute().as_uri()
    logs, mount = _logs(path), mount_of(path.parent)
    on_shared_disk = mount is not None and mount.shared  # what another host writes may not show in its times
    if not logs and not on_shared_disk:
        return _query(f"{place}?mode=ro&immutable=1", path, read)
    try:
        return _query(f"{place}?mode=ro", path, read)
    except exc.OperationalError:  # a read-only disk, or one that cannot share memory, and a log to be read
        with tempfile.TemporaryDirectory(prefix="imax-status-") as folder:
            for name in (path.name, *logs):
                shutil.copyfile(path.with_name(name), Path(folder) / name)
            return _query((Path(folder) / path.name).as_uri(), path, read)


def _query(place: str, path: Path, read: Callable[[Connection], Value]) -> Value:
    made = engine(lambda: connect(place))
    try:
        with made.connect() as connection:
            require_version(connection, path)
            return read(connection)
    finally:
        made.dispose()


def _logs(path: Path) -> list[str]:
    """Files beside the store that hold a part of it."""
    beside = [path.with_name(path.name + ending) for ending in LOGS]
    return [log.name for log in beside if is_file(log) and log.stat().st_size > 0]


def _stamp(path: Path) -> tuple[int, int, int, list[str]]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, _logs(path)
