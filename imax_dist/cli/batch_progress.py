"""Progress of a batch on stderr: a line a poster every few seconds while it runs, and at its end."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imax_dist.events import Listener
    from imax_dist.jobs.board import Board

EVERY_S = 5.0


class BatchProgress:
    """A listener for the pool's events that prints; a context so that its last line is always ended."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._board: Board | None = None
        self._began = time.monotonic()
        self._ended = 0
        self._printed: dict[str, float] = {}

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stderr.flush()

    def watch(self, board: Board) -> Listener:
        """Listen to the pool of this board."""
        self._board = board
        return self._hear

    def counts(self) -> str:
        """``3 done, 2 queued``."""
        from collections import Counter

        from imax_dist.jobs.state import name_of

        states = {} if self._board is None else self._board.states
        found = Counter(name_of(state) for state in states.values())
        return ", ".join(f"{count} {name}" for name, count in found.most_common())

    def _hear(self, name: str, fields: dict[str, Any]) -> None:
        lines = {
            "batch.started": self._started,
            "gang.ready": lambda f: f"{f['gang']} ready, {f['ranks']} ranks, {f['seconds']:.1f} s",
            "gang.failed": lambda f: f"{f['gang']} could not be built: {f['message']}",
            "gang.lost": lambda f: f"{f['gang']} lost: {f['message']}",
            "gang.draining": lambda f: f"{f['gang']}: its host goes away",
            "step": self._step,
            "note": lambda f: f"{f['job']}: {f['text']}",
            "job.queued": self._queued,
            "job.done": self._done,
            "job.proofed": lambda f: self._over(f"{f['job']} has its proof"),
            "job.failed": lambda f: self._over(f"{f['job']} FAILED: {f['message']}"),
            "job.cancelled": lambda f: self._over(f"{f['job']} cancelled"),
        }
        line = lines[name](fields) if name in lines else None
        if line is not None and not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def _started(self, fields: dict[str, Any]) -> str:
        return f"{fields['posters']} posters, {fields['waiting']} to do"

    def _step(self, fields: dict[str, Any]) -> str | None:
        now = time.monotonic()
        if now - self._printed.setdefault(fields["job"], now) < EVERY_S:
            return None
        self._printed[fields["job"]] = now
        place = f"{fields['stage']} {fields['index']}/{fields['steps']}"
        return f"{fields['job']} on {fields['gang']}: {place}, {fields['seconds']:.1f} s a step"

    def _queued(self, fields: dict[str, Any]) -> str | None:
        return f"{fields['job']} goes back to the queue: {fields['after']}" if fields["after"] else None

    def _done(self, fields: dict[str, Any]) -> str:
        return self._over(f"{fields['job']} done in {fields['seconds']:.1f} s")

    def _over(self, text: str) -> str:
        self._ended += 1
        waiting = len(self._board.waiting()) + len(self._board.running()) if self._board else 0
        left = (time.monotonic() - self._began) / self._ended * waiting
        return f"{text}; {self.counts()}" + (f", about {duration(left)} left" if waiting else "")


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
