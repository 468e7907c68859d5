"""Progress of a batch on stderr: bars on a terminal, else a line a poster every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from imax_dist.cli.batch_bars import GangBars
from imax_dist.cli.progress import LABELS

if TYPE_CHECKING:
    from imax_dist.events import Listener
    from imax_dist.jobs.board import Board

EVERY_S = 5.0
LAST = "extrapolated"
LEAST_TO_GUESS = 0.3
"""Posters made, in part or whole, before the time left is guessed."""


class BatchProgress:
    """A listener for the pool's events that prints; a context so that the terminal is left in order."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._board: Board | None = None
        self._bars: GangBars | None = None
        self._began: float | None = None
        self._ended = 0
        self._to_do = 0
        self._under_way: dict[str, float] = {}
        self._printed: dict[str, float] = {}
        self._stages: dict[str, str] = {}

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
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
            "batch.started": self._start,
            "batch.planned": lambda f: f["text"],
            "cluster.starting": lambda f: f"starting Ray {where(f['ray'])}",
            "gang.building": lambda f: f"{f['gang']}: starting {ranks(f['ranks'])}",
            "gang.ready": lambda f: f"{f['gang']}: {ranks(f['ranks'])} ready after {f['seconds']:.1f} s",
            "gang.failed": lambda f: f"{f['gang']} could not be built: {f['message']}",
            "gang.lost": self._lost,
            "gang.draining": lambda f: f"{f['gang']}: its host goes away",
            "job.started": lambda _: self._first_job(),
            "stage.started": lambda f: self._stages.update({f["job"]: f["stage"]}),
            "step": self._step,
            "progress": self._progress,
            "note": lambda f: f"{f['job']}: {f['text']}",
            "job.queued": self._queued,
            "job.done": lambda f: self._over(f, f"{f['job']} done in {f['seconds']:.1f} s"),
            "job.proofed": lambda f: self._over(f, f"{f['job']} has its proof"),
            "job.failed": lambda f: self._over(f, f"{f['job']} FAILED: {f['message']}"),
            "job.cancelled": lambda f: self._over(f, f"{f['job']} cancelled"),
            "batch.stopping": lambda _: self._close(),
            "batch.done": lambda _: self._close(),
        }
        line = lines[name](fields) if name in lines else None
        if line is not None and not self.quiet:
            self.say(line)

    def say(self, line: str) -> None:
        """A line on stderr, above the bars if there are any."""
        if self._bars is not None:
            self._bars.write(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.close()
            self._bars = None

    def _start(self, fields: dict[str, Any]) -> str:
        self._to_do = fields["waiting"]
        posters = "1 poster" if fields["posters"] == 1 else f"{fields['posters']} posters"
        return f"{posters}, {fields['waiting']} to do"

    def _first_job(self) -> None:
        self._began = self._began or time.monotonic()
        if self._bars is None and not self.quiet and sys.stderr.isatty():
            self._bars = GangBars(self._to_do)

    def _lost(self, fields: dict[str, Any]) -> str:
        if self._bars is not None:
            self._bars.clear(fields["gang"])
        return f"{fields['gang']} lost: {fields['message']}"

    def _step(self, fields: dict[str, Any]) -> str | None:
        job, gang, stage = fields["job"], fields["gang"], LABELS[fields["stage"]]
        within = fields["index"] / fields["steps"]
        self._under_way[job] = max(within, self._under_way.get(job, 0.0)) if stage == LABELS[LAST] else 0.0
        if self._bars is not None:
            self._bars.step(gang, job, stage, fields)
            self._bars.whole(self._ended, self._left())
            return None
        place = f"{stage} {fields['index']}/{fields['steps']}, {fields['seconds']:.2f} s a step"
        return self._now_and_then(job, gang, place)

    def _progress(self, fields: dict[str, Any]) -> str | None:
        """Of a stage without steps that takes long: a decode by rows."""
        job, gang = fields["job"], fields["gang"]
        stage = self._stages.get(job, "decode")
        percent = round(100 * fields["done"] / fields["total"])
        if self._bars is not None:
            self._bars.progress(gang, job, LABELS.get(stage, stage), percent)
            return None
        return self._now_and_then(job, gang, f"{LABELS.get(stage, stage)} {percent} %")

    def _now_and_then(self, job: str, gang: str, place: str) -> str | None:
        """A line of a poster, every few seconds."""
        now = time.monotonic()
        if now - self._printed.setdefault(job, now) < EVERY_S:
            return None
        self._printed[job] = now
        return f"{job} on {gang}: {place}; {self._ended} of {self._to_do} posters{self._left()}"

    def _queued(self, fields: dict[str, Any]) -> str | None:
        return f"{fields['job']} goes back to the queue: {fields['after']}" if fields["after"] else None

    def _over(self, fields: dict[str, Any], text: str) -> str:
        self._ended += 1
        self._under_way.pop(fields["job"], None)
        if self._bars is not None:
            self._bars.clear(fields["gang"]) if "gang" in fields else None
            self._bars.whole(self._ended, self._left())
            return text
        return f"{text}; {self.counts()}{self._left()}"

    def _left(self) -> str:
        """``, about 40 s left``, from all that was done since the first poster began, also by halves."""
        made = self._ended + sum(self._under_way.values())
        missing = self._to_do - made
        if self._began is None or made < LEAST_TO_GUESS or missing <= 0:
            return ""
        return f", about {duration((time.monotonic() - self._began) / made * missing)} left"


def ranks(count: int) -> str:
    """``1 rank``, ``2 ranks``."""
    return "1 rank" if count == 1 else f"{count} ranks"


def where(ray: str) -> str:
    """Where Ray is, as a person would say it."""
    return (
        "on this machine" if ray == "local" else f"at {ray}" if ray != "auto" else "(the cluster that runs)"
    )


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
