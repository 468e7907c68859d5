"""On the path of the chaos run's processes: a clock that is set and a slow disk, by files in $IMAX_CHAOS."""

import os
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


if FOLDER.is_dir():
    os.fsync = _slow(os.fsync)
    if os.environ.get("IMAX_CHAOS_DRIVER"):
        time.time = _set_clock(time.time)
