"""Faults inside a rank that lives on: slow, stuck, out of memory, in a long step, on a spot host.

The rank's own clock does the harm (site/sitecustomize.py): a step reads it at its beginning and its end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.environment import PREEMPTED, SOON_S, imax, no_gang_lost
from tests.chaos.shop import Fault, Shop, wait_until

NOTICE = "notice"
"""The file by which a spot host says that it goes away, in the folder of the switches."""
SLOW_S = 0.2
"""At each end of a step that takes some 20 ms."""
LONG_STEP_S = 30.0
WINDOW_S = 12.0


@contextmanager
def switched(shop: Shop, name: str, pid: int, value: float) -> Iterator[None]:
    """For the length of the block, of this process alone."""
    switch = shop.switches / f"{name}-{pid}"
    switch.write_text(str(value))
    try:
        yield
    finally:
        switch.unlink()


def slow_rank(shop: Shop, fault: Fault, pid: int) -> None:
    """A tenth of its speed and less: its gang works on."""
    with no_gang_lost(shop, fault), switched(shop, "wait", pid, SLOW_S):
        time.sleep(WINDOW_S)


def stuck_rank(shop: Shop, fault: Fault, pid: int) -> None:
    """It computes for ever while the other one waits for it."""
    with switched(shop, "wait", pid, 1e6):
        wait_until("a stuck rank to be seen", lambda: _lost(shop, fault) or shop.ended)


def killed_in_a_long_step(shop: Shop, fault: Fault, pid: int) -> None:
    with switched(shop, "wait", pid, LONG_STEP_S):
        time.sleep(2.0)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until("the kill to be seen", lambda: _lost(shop, fault) or shop.ended)


def out_of_memory(shop: Shop, fault: Fault, pid: int) -> None:
    """The poster fails, since more of the same ranks would, and is made after ``imax retry``."""
    with switched(shop, "memory", pid, 1.0):
        wait_until("the job to fail", lambda: _failed(shop, fault) or shop.ended)
    fault.seen_s = time.time() - fault.at
    said = imax(shop, "retry", str(shop.out), fault.job)
    if said.returncode:
        shop.wrong.append(f"retry of {fault.job} ended with {said.returncode}: {said.stderr}")


def notice(shop: Shop, fault: Fault, pid: int) -> None:
    """On the driver's own host it ends the batch with a checkpoint and 75."""
    file = shop.switches / NOTICE
    file.touch()
    code = shop.driver.wait(SOON_S * 3)
    fault.seen_s = time.time() - fault.at
    file.unlink()
    if code not in (PREEMPTED, 0):
        shop.wrong.append(f"a spot notice ended the driver with {code}, not {PREEMPTED}")
    shop.start()


def _lost(shop: Shop, fault: Fault) -> bool:
    return any(
        event["event"] == "gang.lost" and event["gang"] == fault.gang for event in shop.events_since(fault.at)
    )


def _failed(shop: Shop, fault: Fault) -> bool:
    return any(
        event["event"] == "job.failed" and event["job"] == fault.job for event in shop.events_since(fault.at)
    )


HARMED: dict[str, Callable[[Shop, Fault, int], None]] = {
    "slow rank": slow_rank,
    "stuck rank": stuck_rank,
    "kill in a long step": killed_in_a_long_step,
    "out of memory": out_of_memory,
    "spot notice": notice,
}


def where(folder: Path) -> str:
    """The notice's file, for the pool's settings."""
    return str(folder / "switches" / NOTICE)
