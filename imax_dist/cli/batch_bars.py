"""A batch on a terminal: a bar for every gang at work and one for the whole, drawn in place."""

from __future__ import annotations

import sys
import time
from typing import Any

from imax_dist.cli.progress import label
from imax_dist.events import StepDone

REDRAW_S = 0.2
MOST_BARS = 16
"""Gangs with a bar of their own; a terminal has no room for more."""
FORMAT = "{desc} |{bar:20}| {n_fmt}/{total_fmt}{postfix}"
IN_PERCENT = "{desc} |{bar:20}| {percentage:.0f} %"


class GangBars:
    """Bars on stderr; ``close`` leaves the terminal in order."""

    def __init__(self, posters: int) -> None:
        from tqdm import tqdm

        self._make = tqdm
        self._gangs: dict[str, Any] = {}
        self._places: dict[str, int] = {}
        self._drawn: dict[str, float] = {}
        self._whole = tqdm(
            total=posters, file=sys.stderr, desc="posters", bar_format=FORMAT, position=0, leave=False
        )

    def step(self, gang: str, job: str, step: StepDone) -> None:
        """A poster has made a step on a gang."""
        now = time.monotonic()
        last = step.index == step.steps
        if now - self._drawn.get(gang, 0.0) < REDRAW_S and not last:
            return
        self._drawn[gang] = now
        place = step.index, step.steps
        self._draw(gang, job, label(step.stage), place, form=FORMAT, text=f"{step.seconds:.2f} s a step")

    def progress(self, gang: str, job: str, stage: str, percent: int) -> None:
        """A stage without steps has come so far."""
        self._draw(gang, job, stage, (percent, 100), form=IN_PERCENT)

    def _draw(
        self, gang: str, job: str, stage: str, place: tuple[int, int], *, form: str, text: str = ""
    ) -> None:
        bar = self._bar(gang)
        if bar is not None:
            bar.n, bar.total = place
            bar.bar_format = form
            bar.set_description_str(f"{gang}  {job[:24]:<24} {stage:>16}", refresh=False)
            bar.set_postfix_str(text, refresh=True)

    def whole(self, ended: int, text: str) -> None:
        """So many posters are over."""
        self._whole.n = ended
        self._whole.set_postfix_str(text.removeprefix(", "), refresh=True)

    def clear(self, gang: str) -> None:
        """The gang has nothing to show now."""
        bar = self._gangs.pop(gang, None)
        if bar is not None:
            bar.close()

    def write(self, text: str) -> None:
        """A line above the bars."""
        self._make.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bars away."""
        for bar in [*self._gangs.values(), self._whole]:
            bar.close()

    def _bar(self, gang: str) -> Any:
        place = self._places.setdefault(gang, len(self._places) + 1)
        if gang not in self._gangs and place <= MOST_BARS:
            self._gangs[gang] = self._make(
                total=1, file=sys.stderr, bar_format=FORMAT, position=place, leave=False
            )
        return self._gangs.get(gang)
