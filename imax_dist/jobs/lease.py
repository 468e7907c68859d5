"""One driver a folder: who fills it, on which host, and whether that still holds.

An advisory lock ends with the process that holds it, but some file systems grant it to everybody (NFS without
lock service, Lustre with localflock). So beside it lies a record, ``batch.lease``: host, process, boot, shard
and a token; its modification time is the driver's heartbeat, which needs no room on the disk. The driver
compares token and folder before each commit: one that was replaced, or whose folder went away, writes no
more. A time is compared with the same file's earlier time only, never with a clock of another host.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from imax_dist.errors import BadConfig, FolderBusy, FolderGone
from imax_dist.output.atomic import write_error, write_json
from imax_dist.output.own_files import is_file
from imax_dist.settings_mapping import from_mapping

LONGEST_NOTE = 500
LARGEST = 1 << 14
BEAT_S = 2.0
EXPIRES_S = 20.0
"""A driver on another host without a heartbeat for so long has lost the folder."""
LOOKS_ALIVE_S = 60.0
"""For those who only look: above ``EXPIRES_S`` by the difference of two hosts' clocks."""


@dataclass(frozen=True)
class Holder:
    """The process that fills a folder, or one shard of it."""

    host: str
    pid: int
    boot: str
    """Of the kernel: after a restart, no process of before is alive."""
    namespace: str
    """Of process ids: a container's 7 is another process than its host's 7."""
    shard: str | None
    token: str
    since: str

    def __str__(self) -> str:
        part = f" (shard {self.shard})" if self.shard else ""
        return f"process {self.pid} on {self.host} since {self.since}{part}"

    @property
    def here(self) -> bool:
        """Whether its process id means something to this process."""
        return (self.boot, self.namespace) == (_boot(), _namespace()) and self.boot != ""

    @property
    def dead(self) -> bool:
        """Whether it is known to be gone, without waiting for a heartbeat."""
        if self.here:
            return not _exists(self.pid)
        return self.host == os.uname().nodename and self.boot not in ("", _boot())


class Lease:
    """A held folder. ``check`` is called before every commit."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._folder = _identity(path.parent)

    def check(self) -> None:
        """Raise FolderGone if the folder was moved or removed, FolderBusy if another driver took it."""
        folder = self.path.parent
        if _identity(folder) != self._folder:
            raise FolderGone(
                f"{folder} was moved or removed while its batch ran; nothing more is written there. Put it "
                "back and run the same command again to resume"
            )
        now = read_holder(self.path)
        if now is None or now.token != self.holder.token:
            raise FolderBusy(
                f"{folder} was taken over by {now or 'another batch'} after this one stopped responding"
            )

    def beat(self) -> None:
        """A sign of life; a full disk takes it, too."""
        with suppress(OSError):
            os.utime(self.path, follow_symlinks=False)

    def release(self) -> None:
        """The folder is free, unless it is somebody else's by now."""
        with suppress(OSError):
            now = read_holder(self.path)
            if now is not None and now.token == self.holder.token:
                self.path.unlink(missing_ok=True)


@contextmanager
def hold(store: Path, shard: str | None = None, *, expires_s: float = EXPIRES_S) -> Iterator[Lease]:
    """Hold the folder of ``store`` (or its shard) for the length of the block, with a heartbeat.

    Raises FolderBusy, naming the holder, if another driver lives; CannotWrite or NoPermission.
    """
    holder = this_holder(shard)
    with _locked(store.with_suffix(".lock"), str(holder)):
        path = lease_path(store)
        _wait_for(path, expires_s)
        write_json(path, asdict(holder))
        lease = Lease(path, holder)
        try:
            with _beating(lease):  # first, so that of two that begin at once both see the other alive
                _require_alone(path, holder, expires_s)
                yield lease
        finally:
            lease.release()


def lease_path(store: Path) -> Path:
    """``batch.sqlite`` is held by ``batch.lease``."""
    return store.with_suffix(".lease")


def driver_of(store: Path) -> Holder | None:
    """Who fills the folder of ``store`` now, by the record alone: takes nothing, writes nothing."""
    path = lease_path(store)
    holder = read_holder(path)
    if holder is None or holder.dead:
        return None
    with suppress(OSError):
        silent = time.time() - path.stat().st_mtime
        return holder if holder.here or silent < LOOKS_ALIVE_S else None
    return None


def read_holder(path: Path) -> Holder | None:
    """The record, or None if there is none of this program."""
    try:
        if not is_file(path) or path.stat().st_size > LARGEST:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        return from_mapping(Holder, found, where=str(path)) if isinstance(found, dict) else None
    except (OSError, ValueError, RecursionError, BadConfig):
        return None


def this_holder(shard: str | None = None) -> Holder:
    """This process."""
    return Holder(
        host=os.uname().nodename,
        pid=os.getpid(),
        boot=_boot(),
        namespace=_namespace(),
        shard=shard,
        token=secrets.token_hex(16),
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def excludes(one: str | None, other: str | None) -> bool:
    """Whether two shards (None: the whole manifest) have posters in common."""
    if one is None or other is None:
        return True
    return one == other or one.partition("/")[2] != other.partition("/")[2]


def _require_alone(own: Path, holder: Holder, expires_s: float) -> None:
    for path in sorted(own.parent.glob("batch*.lease")):
        other = read_holder(path)
        if path != own and other is not None and excludes(holder.shard, other.shard):
            _wait_for(path, expires_s)


def _wait_for(path: Path, expires_s: float) -> None:
    """Return when the holder of ``path`` is gone or silent for ``expires_s``; FolderBusy if it lives."""
    began, beats = time.monotonic(), _beats(path)
    while (holder := read_holder(path)) is not None and not holder.dead:
        if _beats(path) != beats:
            raise _busy(path.parent, str(holder))
        if time.monotonic() - began > expires_s:
            return
        time.sleep(min(0.1, expires_s / 10))


def _busy(folder: Path, holder: str) -> FolderBusy:
    return FolderBusy(f"{folder} is being filled by {holder}; imax status shows its progress")


@contextmanager
def _locked(path: Path, note: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        _lock(handle, path)
        with suppress(OSError):  # for people only; the disk may be full
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
        raise _busy(path.parent, holder) from error
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def _beating(lease: Lease) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            lease.beat()

    thread = threading.Thread(target=beat, daemon=True, name="imax-lease")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=BEAT_S)


def _beats(path: Path) -> int:
    """The heartbeat as the file server has it: opening a file asks for its attributes again."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    stat = _read(f"/proc/{pid}/stat", lambda path: Path(path).read_text())
    return stat.rpartition(")")[2].split()[:1] not in (["Z"], ["X"])  # ended, and not yet waited for


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id", lambda path: Path(path).read_text().strip())


def _namespace() -> str:
    return _read("/proc/self/ns/pid", os.readlink)


def _read(path: str, read: Callable[[str], str]) -> str:
    try:
        return read(path)
    except OSError:
        return ""
