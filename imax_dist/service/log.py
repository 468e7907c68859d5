"""One JSON object a line on stderr: requests, gangs, jobs. No prompts, no headers, no tokens."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from imax_dist.events import (
    BatchNote,
    CheckpointStarted,
    CheckpointWritten,
    InJob,
    MemoryPeak,
    PoolEvent,
    PreviewWritten,
    Progress,
    StageDone,
    StageStarted,
    StepDone,
)
from imax_dist.events.log import as_json

LEVELS = {
    **dict.fromkeys(("http.error", "chore.failed"), "error"),
    **dict.fromkeys(("gang.failed", "gang.lost", "job.failed"), "warning"),
}
UNLOGGED = (
    *(StepDone, Progress, StageStarted, StageDone, CheckpointStarted, CheckpointWritten, MemoryPeak),
    PreviewWritten,
)
"""In the job's own events.jsonl."""


def traceback_of(error: BaseException) -> str:
    """For an error of ours: where it was raised, and what it came from."""
    return "".join(traceback.format_exception(error))


class Log:
    """Writes whole lines, from any thread; calls of ``http`` are left out with ``quiet``."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.Lock()

    def __call__(self, record: dict[str, Any]) -> None:
        if self._quiet and record["event"] == "http":
            return
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"ts": moment, "level": LEVELS.get(record["event"], "info"), **record}
        with self._lock:
            self._stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._stream.flush()

    def listener(self) -> Callable[[PoolEvent], None]:
        """Hears the pool: gangs and jobs by their names."""

        def listen(event: PoolEvent) -> None:
            if isinstance(event, BatchNote):
                self({"event": "note", "level": "warning", "text": event.text})
            elif not (isinstance(event, InJob) and isinstance(event.event, UNLOGGED)):
                self(as_json(event))

        return listen


class _Lines(logging.Handler):
    """What a library logs, as lines of ours: without tracebacks, whose errors the guard has told."""

    def __init__(self, log: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip().splitlines() or [""]
        self._log({"event": "http.note", "level": record.levelname.lower(), "text": text[0][:200]})


@contextmanager
def heard_of(library: str, log: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """For the length of the block, ``library`` writes into the log and not beside it."""
    logger, lines = logging.getLogger(library), _Lines(log)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
