"""What the pool depends on from outside, each with its usual value; tests put their own in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from imax_dist.events import PoolListener, ignore
from imax_dist.jobs.store import free
from imax_dist.jobs.task import Gang
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.run import never


def in_background(function: Callable[[], Gang]) -> Future[Gang]:
    """Run ``function`` in a thread that does not keep the program alive."""
    future: Future[Gang] = Future()

    def fill() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=fill, daemon=True).start()
    return future


def no_plan(request: Request, ranks: int) -> str:
    """Nobody knows the devices."""
    del request, ranks
    return ""


@dataclass(frozen=True)
class PoolDeps:
    """Clock, signals, listeners, threads."""

    listen: PoolListener = ignore
    stop: Callable[[], bool] = never
    now: Callable[[], float] = time.monotonic
    """A clock that nobody sets: for deadlines and waits."""
    wall: Callable[[], float] = time.time
    """The clock that people set; only watched."""
    sleep: Callable[[float], None] = time.sleep
    news: Callable[[], bool] = never
    """Whether somebody has changed the queue since the last call; it is looked at every second anyway."""
    check: Callable[[], None] = free
    """Raises if the batch's folder is no longer this driver's."""
    remedy: Callable[[Request, int], str] = no_plan
    """More ranks than so many, on which a poster has room, in words; empty if the planner knows none."""
    background: Callable[[Callable[[], Gang]], Future[Gang]] = in_background
    tick_s: float = 0.01
