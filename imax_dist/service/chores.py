"""What a service does beside its requests, again and again, whatever goes wrong in between.

A store or a disk that is away is waited for. Anything else is an error of ours: it is logged with its
traceback, counted, told by ``/healthz``, and the chore is tried again after a pause that doubles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from imax_dist.errors import ImaxError
from imax_dist.service.log import traceback_of

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 600.0


@dataclass(frozen=True)
class Chore:
    """``once`` every ``every_s`` seconds."""

    name: str
    once: Callable[[], Awaitable[None]]
    every_s: float


@dataclass(frozen=True)
class Watch:
    """Over the chores of one service; ``failing`` says in words what is wrong with which."""

    failing: dict[str, str]
    failures: Counter
    log: Callable[[dict[str, Any]], None]

    @classmethod
    def over(
        cls, failing: dict[str, str], registry: CollectorRegistry, log: Callable[[dict[str, Any]], None]
    ) -> Watch:
        """That counts in ``registry``."""
        text = "Errors of the program's own in what a service does beside requests."
        return cls(failing, Counter("imax_chore_failures_total", text, ("chore",), registry=registry), log)

    async def keep_doing(self, chore: Chore) -> None:
        """Until cancelled."""
        in_a_row, already_reported = 0, ""
        self.failures.labels(chore=chore.name)
        while True:
            pause, away = chore.every_s, ""
            try:
                await chore.once()
                in_a_row = 0
                self.failing.pop(chore.name, None)
            except (ImaxError, OSError) as error:
                away = f"{chore.name}: {error}"
            except Exception as error:
                self.failures.labels(chore=chore.name).inc()
                in_a_row += 1
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (in_a_row - 1))
                self._report(chore, error, in_a_row, pause)
            if away and away != already_reported:  # once, not every second
                self.log({"event": "note", "level": "warning", "text": away})
            already_reported = away
            await asyncio.sleep(pause)

    def _report(self, chore: Chore, error: Exception, in_a_row: int, pause: float) -> None:
        """The log has all of it, the probe, which anybody may ask, the kind of error only."""
        kind, again = type(error).__name__, f"tried again in {pause:g} s"
        self.failing[chore.name] = f"{kind}, {in_a_row} in a row, {again}; the log has the traceback"
        self.log(
            {
                "event": "chore.failed",
                "chore": chore.name,
                "error": f"{kind}: {error}",
                "in_a_row": in_a_row,
                "again_in_s": pause,
                "traceback": traceback_of(error),
            }
        )
