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
        self._values: dict[str, list[float]] = {}

    def note(self, **values: float) -> None:
        """Add one step's numbers to the averages of the next line."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    def due(self, seconds: float) -> bool:
        """True once ``every`` seconds have gone by since the last line."""
        return seconds >= self._next

    def write(self, *, seconds: float, **facts: Any) -> None:
        """Append one line: the facts and the averages since the last one."""
        means = {name: round(sum(values) / len(values), 5) for name, values in self._values.items()}
        line = json.dumps({**facts, "seconds": seconds, **means})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._values, self._next = {}, seconds + self._every
