"""In the chaos run's processes: clocks that are set or do harm, a slow disk, by files in $IMAX_CHAOS."""

import os
import threading
import time
from pathlib import Path

FOLDER = Path(os.environ.get("IMAX_CHAOS", "/nonexistent"))


def _number(name):
    try:
        return float((FOLDER / name).read_text())
    except (OSError, ValueError):
        return 0.0


def _set_clock(real):
    return lambda: real() + _number("clock")


def _slow(real):
    def fsync(handle):
        time.sleep(_number("fsync"))
        return real(handle)

    return fsync


def _harm(real):
    """The clock that a step reads: it waits, or finds no memory, in the process that the file names."""

    def perf_counter():
        if threading.current_thread().name != "heartbeat":
            began = real()
            while (wait := _number(f"wait-{os.getpid()}")) > real() - began:
                time.sleep(min(wait, 0.05))
            if _number(f"memory-{os.getpid()}"):
                raise MemoryError("can't allocate memory (chaos)")
        return real()

    return perf_counter


if FOLDER.is_dir():
    time.perf_counter = _harm(time.perf_counter)
    os.fsync = _slow(os.fsync)
    if os.environ.get("IMAX_CHAOS_DRIVER"):
        time.time = _set_clock(time.time)
