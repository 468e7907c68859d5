"""One batch a folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imax_dist.errors import FolderBusy
from imax_dist.output.atomic import write_error

LONGEST_NOTE = 500


def lock_path(store: Path) -> Path:
    """``batch.sqlite`` is guarded by ``batch.lock``."""
    return store.with_suffix(".lock")


@contextmanager
def hold(path: Path, note: str) -> Iterator[None]:
    """Hold the lock at ``path`` for the length of the block; ``note`` says who does.

    Raises FolderBusy, with the holder's note, if another process holds it; CannotWrite or NoPermission.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        _lock(handle, path)
        os.ftruncate(handle, 0)
        os.write(handle, note.encode()[:LONGEST_NOTE])
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, LONGEST_NOTE).decode(errors="replace") or "another process"
        raise FolderBusy(
            f"{path.parent} is being filled by {holder}; imax status shows how far it is"
        ) from error
    except OSError as error:
        raise write_error(path, error) from error
