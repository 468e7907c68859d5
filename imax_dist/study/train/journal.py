"""The loss curve of a run: JSON lines, appended as it goes, and cut where a resumed run goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from imax_dist.output.atomic import write_bytes, write_error


class Journal:
    """Averages what is noted between two lines. ``every`` is in seconds.

    A run goes on from ``step``: lines beyond it are cut, since it writes them again.
    """

    def __init__(self, path: Path, *, every: float, step: int = 0) -> None:
        _cut(path, step)
        self._path = path
        self._every = every
        self._next = 0.0
        self._values: dict[str, list[float]] = {}

    def note(self, **values: float) -> None:
        """Add one step's numbers to the averages of the next line."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    def due(self, seconds: float) -> bool:
        """True once ``every`` seconds have gone by since the last line."""
        return seconds >= self._next

    def write(self, *, seconds: float, **facts: Any) -> None:
        """Append one line: the facts and the averages since the last one. Raises CannotWrite."""
        means = {name: round(sum(values) / len(values), 5) for name, values in self._values.items()}
        line = json.dumps({**facts, "seconds": seconds, **means})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise write_error(self._path, error) from error
        self._values, self._next = {}, seconds + self._every


def _cut(path: Path, step: int) -> None:
    """Leave of ``path``, if it is there, the lines up to ``step``; a line cut short by a kill goes, too."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if _step(line) <= step]
    if len(kept) < len(lines):
        write_bytes(path, "".join(f"{line}\n" for line in kept).encode())


def _step(line: str) -> float:
    """The step of a line; beyond all others if it has none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return math.inf
