"""Faults of what is around the ranks: operators, disks, clocks, folders.

Each does its harm, waits for what must come of it, and says what came instead, if anything.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.shop import Fault, Shop

DISK = "size=160m"
FILLER = "filler"
WINDOW_S = 8.0
STEP_BACK_S = 4.0
SLOW_FSYNC_S = 7.0
SOON_S = 30.0
PREEMPTED, CANNOT_WRITE = 75, 73


@contextmanager
def own_disk(folder: Path) -> Iterator[bool]:
    """A small file system mounted on ``folder``, if this user may mount one."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", DISK, "chaos", str(folder)]
    left = folder.is_mount()  # by an earlier run that was killed
    mounted = left or subprocess.run(mount, capture_output=True, check=False).returncode == 0
    (folder / FILLER).unlink(missing_ok=True)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def imax(shop: Shop, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imax_dist", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=shop.environment(),
    )


def cancel(shop: Shop, fault: Fault, pid: int) -> None:
    """Confirmed, and carried out after the step. One that was done before the command came is no loss."""
    fault.over = True
    said = imax(shop, "cancel", str(shop.out), fault.job)
    names: set[tuple[str, str | None]] = set()
    if f"cancelled: {fault.job}" in said.stdout:
        shop.cancelled.add(fault.job)
    else:
        names = _events(shop)
        if ("job.done", fault.job) not in names:
            shop.wrong.append(f"{fault.job} could not be cancelled: {said.stdout}{said.stderr}")
    deadline = time.monotonic() + SOON_S
    while fault.job in shop.cancelled and time.monotonic() < deadline and not shop.ended:
        names = _events(shop)
        if {("job.cancelled", fault.job), ("job.done", fault.job)} & names:
            break
        time.sleep(0.1)
    if ("job.done", fault.job) in names:
        shop.cancelled.discard(fault.job)  # it was in its last step
    fault.seen_s = time.time() - fault.at


def _events(shop: Shop) -> set[tuple[str, str | None]]:
    return {(event["event"], event.get("job")) for event in shop.events()}


def group_sigterm(shop: Shop, fault: Fault, pid: int) -> None:
    """As supervisors stop: every process of the driver's group; 75 within seconds."""
    os.killpg(shop.driver.pid, signal.SIGTERM)
    code = shop.driver.wait(SOON_S * 3)
    fault.seen_s = time.time() - fault.at
    if code != PREEMPTED:
        shop.wrong.append(f"SIGTERM to the group ended the driver with {code}, not {PREEMPTED}")
    shop.start()


def two_drivers(shop: Shop, fault: Fault, pid: int) -> None:
    """The second is refused, the first goes on."""
    second = subprocess.run(
        shop.command(), capture_output=True, text=True, check=False, timeout=120, env=shop.environment()
    )
    fault.seen_s, fault.over = time.time() - fault.at, True
    if second.returncode != PREEMPTED:
        shop.wrong.append(f"a second driver ended with {second.returncode}: {second.stderr[-300:]}")
    if shop.ended and shop.driver.returncode:
        shop.wrong.append(f"the first of two drivers ended with {shop.driver.returncode}")


def folder_moved(shop: Shop, fault: Fault, pid: int) -> None:
    """The batch ends with a sentence; moved back, it goes on."""
    away = shop.out.with_name("moved")
    os.rename(shop.out, away)
    code = shop.driver.wait(SOON_S * 3)
    fault.seen_s = time.time() - fault.at
    if code != CANNOT_WRITE:
        shop.wrong.append(f"a moved folder ended the driver with {code}, not {CANNOT_WRITE}")
    time.sleep(1.0)
    if shop.out.exists():  # a rank that was in the middle of a write
        shutil.rmtree(shop.out)
    os.rename(away, shop.out)
    shop.start()


def disk_full(shop: Shop, fault: Fault, pid: int) -> None:
    """For some seconds nothing can be written; a driver that gave up is started again."""
    filler = shop.out.parent / FILLER
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    time.sleep(WINDOW_S)
    filler.unlink()
    fault.seen_s = time.time() - fault.at
    if shop.ended:
        if shop.driver.returncode not in (0, CANNOT_WRITE):
            shop.wrong.append(f"a full disk ended the driver with {shop.driver.returncode}")
        shop.start()


def clock_jump(shop: Shop, fault: Fault, pid: int) -> None:
    """An hour on and, seconds later, back: no gang is taken for hung."""
    with no_gang_lost(shop, fault):
        switch = shop.switches / "clock"
        switch.write_text("3600")
        time.sleep(STEP_BACK_S)
        switch.unlink()
        time.sleep(STEP_BACK_S)


def slow_fsync(shop: Shop, fault: Fault, pid: int) -> None:
    """Checkpoints take longer than a step may: a slow disk is no hang."""
    with no_gang_lost(shop, fault):
        switch = shop.switches / "fsync"
        switch.write_text(str(SLOW_FSYNC_S))
        time.sleep(2 * SLOW_FSYNC_S)
        switch.unlink()


@contextmanager
def no_gang_lost(shop: Shop, fault: Fault) -> Iterator[None]:
    def lost() -> int:
        return sum(event["event"] == "gang.lost" for event in shop.events())

    before = lost()
    yield
    fault.seen_s, fault.over = time.time() - fault.at, True
    if lost() != before:
        shop.wrong.append(f"{fault.kind} cost {lost() - before} gangs")


ENVIRONMENT_FAULTS: dict[str, Callable[[Shop, Fault, int], None]] = {
    "cancel": cancel,
    "group SIGTERM": group_sigterm,
    "two drivers": two_drivers,
    "folder moved": folder_moved,
    "disk full": disk_full,
    "clock jump": clock_jump,
    "slow fsync": slow_fsync,
}
