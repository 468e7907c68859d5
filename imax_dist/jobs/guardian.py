"""A small process that ends what a killed driver leaves behind.

Ray's own processes follow a driver that dies within a second, but for two agents that first try for a minute
to report it. The guardian notes the driver's descendants while it lives; when its pipe to the driver breaks,
it ends those that are left. Linux only (/proc); uses nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOK_EVERY_S = 2.0
GRACE_S = 2.0
Birth = tuple[int, str]
"""Process id and start time: a number that came round again is another process."""


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever this process starts in the block ends with it, however it ends."""
    if not Path("/proc/self/stat").exists():
        yield
        return
    command = [sys.executable, "-S", "-E", __file__, str(os.getpid())]
    guardian = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        assert guardian.stdin is not None
        guardian.stdin.write(b"done")
        guardian.stdin.close()
        guardian.wait(timeout=10)


def watch(driver: int) -> None:
    """Note the descendants of ``driver`` until standard input says ``done`` or breaks; then end them."""
    known: set[Birth] = set()
    while not select.select([0], [], [], LOOK_EVERY_S)[0]:
        known |= set(descendants(driver)) - {birth(os.getpid())}
    if os.read(0, 16):
        return
    time.sleep(GRACE_S)
    for pid, started in known:
        if birth(pid) == (pid, started):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(ancestor: int) -> Iterator[Birth]:
    """Children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    pending = list(children.get(ancestor, []))
    while pending:
        pid = pending.pop()
        yield birth(pid)
        pending += children.get(pid, [])


def birth(pid: int) -> Birth:
    """The process, if it is there; else with an empty start time."""
    fields = _stat(pid)
    return pid, fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    watch(int(sys.argv[1]))
