"""The loss curve of a run: JSON lines, appended as it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Averages what is noted between two lines. ``every`` is in seconds."""

    def __init__(self, path: Path, *, every: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._every = every
        self._next = 0.0
        self._sums: dict[str, float] = {}
        self._count = 0

    def note(self, **values: float) -> None:
        """Add one step's numbers to the running averages."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def due(self, seconds: float) -> bool:
        """True once ``every`` seconds have gone by since the last line."""
        return seconds >= self._next

    def write(self, *, seconds: float, **facts: Any) -> None:
        """Append one line: the facts and the averages since the last one."""
        means = {name: round(value / self._count, 5) for name, value in self._sums.items()}
        line = json.dumps({**facts, "seconds": seconds, **means})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._sums, self._count, self._next = {}, 0, seconds + self._every
