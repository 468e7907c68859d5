"""A small process that ends what a killed driver leaves behind.

Ray's own processes follow a driver that dies within a second, but for two agents that first try for a minute
to report it. The guardian notes the driver's descendants while it lives; when its pipe to the driver breaks,
it ends those that are left.
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

import psutil

LOOK_EVERY_S = 2.0
GRACE_S = 2.0
END_S = 10.0


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever this process starts in the block ends with it, however it ends."""
    command = [sys.executable, "-P", __file__, str(os.getpid())]
    guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert guardian.stdin is not None
        with suppress(OSError):  # it was killed: nothing is left to say, and the batch's end stays what it is
            guardian.stdin.write(b"done")
            guardian.stdin.flush()
        with suppress(OSError):
            guardian.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            guardian.wait(timeout=END_S)


def watch(driver: psutil.Process) -> None:
    """Note the descendants of ``driver`` until standard input says ``done`` or breaks; then end them."""
    known: set[psutil.Process] = set()
    while not select.select([0], [], [], LOOK_EVERY_S)[0]:
        with suppress(psutil.Error):
            known |= set(driver.children(recursive=True)) - {psutil.Process()}
    if os.read(0, 16):
        return
    time.sleep(GRACE_S)
    for process in known:  # of the same birth: a process id that came round again is another process
        with suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    watch(psutil.Process(int(sys.argv[1])))
