"""Bars on a terminal's stderr, drawn in place by rich, with lines above them; in a log, the lines alone."""

from __future__ import annotations

import sys
from typing import Any

MOST_BARS = 16
"""At once; a terminal has no room for more."""
REDRAWS_PER_S = 4.0


class Bars:
    """Bars by key. Nothing is drawn where stderr is no terminal, and nothing at all is said if ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._progress: Any = None
        self._bars: dict[str, Any] = {}

    @property
    def drawn(self) -> bool:
        """Whether bars can be seen here."""
        return not self.quiet and sys.stderr.isatty()

    def show(
        self, key: str, text: str, done: float, total: float, *, note: str = "", count: bool = True
    ) -> None:
        """Move the bar ``key`` to ``done`` of ``total``, counted or in percent; begin it if it is new."""
        if not self.drawn or (key not in self._bars and len(self._bars) >= MOST_BARS):
            return
        place = f"{done:.0f}/{total:.0f}" if count else f"{done / total:.0%}"
        progress = self._begin()
        if key not in self._bars:
            self._bars[key] = progress.add_task(text, total=total, completed=done, place=place, note=note)
        progress.update(
            self._bars[key], description=text, total=total, completed=done, place=place, note=note
        )

    def hide(self, key: str) -> None:
        """Take one bar away."""
        if key in self._bars:
            self._progress.remove_task(self._bars.pop(key))

    def write(self, line: str) -> None:
        """A line of its own, above the bars if there are any."""
        if self.quiet:
            return
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take all bars away and leave the terminal in order, also after an error."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._bars = None, {}

    def _begin(self) -> Any:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column

            self._progress = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=3)),
                BarColumn(bar_width=None, table_column=Column(ratio=2, min_width=8)),
                TextColumn("{task.fields[place]}", justify="right"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=sys.stderr),
                transient=True,
                refresh_per_second=REDRAWS_PER_S,
                expand=True,
            )
            self._progress.start()
        return self._progress
