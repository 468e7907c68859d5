"""Files that are either whole or not there: temp file in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from imax_dist.errors import CannotWrite, ImaxError, NoPermission


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` with a temp path beside ``path``, then move it into place.

    The temp file is locked while this process lives, so that ``own_files.remove_unfinished`` knows it.
    Raises NoPermission or CannotWrite (disk full, missing folder, read-only); the temp file is removed.
    """
    temporary: Path | None = None
    handle = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unused = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
        handle = os.open(unused, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        temporary = unused
        with suppress(OSError):  # a disk without locks: what is left there stays
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` whole or not at all."""
    write_file(path, lambda temporary: _write_all(temporary, content))


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented for people, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_error(path: Path, error: OSError, *, into: Path | None = None) -> ImaxError:
    """The sentence and class for an OSError met while writing ``path``, or a file ``into`` a folder."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return NoPermission(f"{path} cannot be written: no permission for {into or path.parent}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotWrite(f"{path} cannot be written: the disk is full; nothing was left behind")
    return CannotWrite(f"{path} cannot be written: {error.strerror or error}")


def require_folder(folder: Path) -> None:
    """Raises CannotWrite for what is there and is not a folder."""
    if folder.exists() and not folder.is_dir():
        raise CannotWrite(f"{folder} is a file, and a folder is needed there; name another")


def require_writable(folder: Path) -> None:
    """Make ``folder`` and check that a file can be written there, before any work is done."""
    require_folder(folder)
    test = folder / f".imax-write-test-{secrets.token_hex(6)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        test.write_bytes(b"x")
    except OSError as error:
        raise write_error(folder, error, into=folder) from error
    finally:
        with suppress(OSError):
            test.unlink()


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
