"""A driver in a process of its own, with gangs that only wait: ``python one_driver.py STORE OUT NOTES``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imax_dist.jobs import driver as drivers
from imax_dist.jobs.board import Board
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.task import Finished, Gang, Outcome, Report, Task

WORK_S = 0.15
drivers.BEAT_S = 0.1  # type: ignore[misc]


class WaitingGang:
    """Finishes each poster after a while, and notes it."""

    ranks = 1

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._task: Task | None = None
        self._ends = 0.0

    def start(self, tasks: Sequence[Task]) -> None:
        (self._task,), self._ends = tasks, time.monotonic() + WORK_S

    def poll(self) -> Report:
        if self._task is None or time.monotonic() < self._ends:
            return Report([], {})
        task, self._task = self._task, None
        with self._notes.open("a") as file:
            file.write(f"{task.job_id} {os.getpid()}\n")
        ended: dict[str, Outcome] = {task.job_id: Finished({"pixels_sha256": "ab", "bytes": 1})}
        return Report([], ended)

    def stop(self, job_id: str) -> None: ...

    def draining(self) -> bool:
        return False

    def destroy(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {"pids": (os.getpid(),), "hosts": ("here",)}


def main() -> None:
    place, out, notes = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

    def build(name: str, ranks: int) -> Gang:
        return WaitingGang(notes)

    with drivers.drive(place) as (store, check):
        Pool(Board(store), build, PoolSettings(gangs=2), out=out).run()
        check()


if __name__ == "__main__":
    main()
