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
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

LOOK_EVERY_S = 2.0
GRACE_S = 2.0
END_S = 10.0
LONGEST_PLACE = 20
"""A socket's path may have 107 bytes, and Ray's take 80 of them."""


@contextmanager
def guarded() -> Iterator[Path]:
    """Whatever this process starts in the block ends with it, however it ends.

    Yields a folder that only this user can enter, and that is removed then. Raises CannotWrite without one.
    """
    command = [sys.executable, "-P", __file__, str(os.getpid())]
    guardian = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert guardian.stdin is not None
    assert guardian.stdout is not None
    folder = guardian.stdout.readline().decode().strip()
    try:
        if not folder:
            from imax_dist.errors import CannotWrite  # late: the guardian itself imports no package

            raise CannotWrite(f"no folder can be made in {short_temporary()} for the session of Ray")
        yield Path(folder)
    finally:
        with suppress(OSError):  # it was killed: nothing is left to say, and the batch's end stays what it is
            guardian.stdin.write(b"done")
            guardian.stdin.flush()
        with suppress(OSError):
            guardian.stdin.close()
        guardian.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            guardian.wait(timeout=END_S)


def short_temporary() -> str:
    """Where temporary files go, unless Ray's sockets in there would have names too long for the system."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_PLACE else "/tmp"


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
    with TemporaryDirectory(prefix="imax-", dir=short_temporary(), ignore_cleanup_errors=True) as private:
        print(private, flush=True)
        watch(psutil.Process(int(sys.argv[1])))
