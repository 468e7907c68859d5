"""What happens while a poster is made, as small named events; listeners draw, log or count them.

Names: ``stage.started`` (stage, steps), ``step`` (stage, index, steps, sigma, seconds; skipped where the
network was not asked), ``progress`` (done, total; within a long stage without steps, at most one a second),
``stage.done`` (stage, seconds), ``checkpoint`` (path), ``note`` (text), ``memory`` (rank, peak_bytes). Stages
of a poster: load, prompt, native, endpoint, extrapolated and decode; in a cascade ``cascade 1``,
``cascade 2`` ... come before extrapolated.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

MOST_PASSES = 8
"""Of a cascade before its last one."""
CASCADE = tuple(f"cascade {number}" for number in range(1, MOST_PASSES + 1))
"""Their names as stages."""

PROGRESS_S = 1.0
"""Seconds between two events of progress."""

Listener: TypeAlias = Callable[[str, dict[str, Any]], None]


def ignore(name: str, fields: dict[str, Any]) -> None:
    """The listener that does nothing."""


@contextmanager
def stage(listen: Listener, name: str, *, steps: int = 0) -> Iterator[None]:
    """Announce a stage's start and, if it ends well, its end with the seconds it took."""
    started = time.perf_counter()
    listen("stage.started", {"stage": name, "steps": steps})
    yield
    listen("stage.done", {"stage": name, "seconds": time.perf_counter() - started})


def progress(listen: Listener, total: int) -> Callable[[int], None]:
    """A function that takes how much more is done and tells at most once a second, and at the end."""
    done, told = 0, time.monotonic()

    def count(more: int) -> None:
        nonlocal done, told
        done += more
        now = time.monotonic()
        if done >= total or now - told >= PROGRESS_S:
            told = now
            listen("progress", {"done": done, "total": total})

    return count


def both(first: Listener, second: Listener) -> Listener:
    """Tell two listeners."""

    def listen(name: str, fields: dict[str, Any]) -> None:
        first(name, fields)
        second(name, fields)

    return listen


def _without_links(path: str, flags: int) -> int:
    """Opens no link: the folder may be a stranger's, and its links lead anywhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def append_to(path: Path) -> Listener:
    """Append every event to a JSON Lines file, one line each, time first (RFC 3339, UTC)."""

    def listen(name: str, fields: dict[str, Any]) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"ts": moment, "v": 1, "event": name, **fields}, ensure_ascii=False)
        with open(path, "a", encoding="utf-8", opener=_without_links) as file:
            file.write(line + "\n")

    return listen
