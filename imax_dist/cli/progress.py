"""Progress on stderr: a bar a pass on a terminal, a line a stage otherwise; rank 0 only."""

from __future__ import annotations

import sys
import time
from typing import Any

from imax_dist.events import CASCADE

LABELS = {
    "load": "load model",
    "prompt": "embed prompt",
    "native": "native pass",
    "endpoint": "enlarge guidance",
    **{name: name.replace("cascade", "cascade pass") for name in CASCADE},
    "extrapolated": "target-size pass",
    "decode": "decode",
}

PERCENT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
SILENCE_S = 30.0
"""Without a terminal: seconds until a stage without steps says how far it is."""


class ProgressBars:
    """A listener for imax_dist.events that draws."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.seconds: dict[str, float] = {}
        self.step_seconds: dict[str, list[float]] = {}
        self._bar: Any = None
        self._started = self._began = self._said = time.perf_counter()
        self._stage = "load"

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        handlers = {
            "stage.started": self._start,
            "step": self._step,
            "progress": self._progress,
            "stage.done": self._done,
            "note": self._note,
            "checkpoint": self._checkpoint,
        }
        handlers[name](fields)

    @property
    def total_seconds(self) -> float:
        return time.perf_counter() - self._started

    def close(self) -> None:
        """Leave the terminal in order, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, fields: dict[str, Any]) -> None:
        self._stage, self._began = fields["stage"], time.perf_counter()
        self._said = self._began
        if self.quiet or not fields["steps"] or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self._bar = tqdm(
            total=fields["steps"], desc=f"{LABELS[fields['stage']]:>17}", unit="step", file=sys.stderr
        )

    def _step(self, fields: dict[str, Any]) -> None:
        self.step_seconds.setdefault(fields["stage"], []).append(fields["seconds"])
        if self._bar is not None:
            if self._bar.n == 0 and fields["index"] > 1:
                self._bar.initial = self._bar.n = fields["index"] - 1
            self._bar.update(1)
        if self.verbose:
            counted = f"step {fields['index']:>3}/{fields['steps']}"
            self._print(f"{counted}  sigma {fields['sigma']:.4f}  {fields['seconds']:.2f} s")

    def _progress(self, fields: dict[str, Any]) -> None:
        """A bar of its own for a stage without steps, or now and then a line."""
        now = time.perf_counter()
        if self._bar is None and not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            label = LABELS[self._stage]
            self._bar = tqdm(total=fields["total"], desc=f"{label:>17}", bar_format=PERCENT, file=sys.stderr)
        if self._bar is not None:
            self._bar.total = fields["total"]
            self._bar.update(fields["done"] - self._bar.n)
        elif now - self._said > SILENCE_S and fields["done"] < fields["total"]:
            self._said = now
            self._print(
                f"{LABELS[self._stage]:>17}  {fields['done'] / fields['total']:.0%} after "
                f"{now - self._began:.0f} s"
            )

    def _done(self, fields: dict[str, Any]) -> None:
        self.seconds[fields["stage"]] = self.seconds.get(fields["stage"], 0.0) + fields["seconds"]
        had_bar = self._bar is not None
        self.close()
        if not had_bar:
            self._print(f"{LABELS[fields['stage']]:>17}  {fields['seconds']:6.2f} s")

    def _note(self, fields: dict[str, Any]) -> None:
        self._print(fields["text"])

    def _checkpoint(self, fields: dict[str, Any]) -> None:
        if self.verbose:
            self._print(f"checkpoint {fields['path']}")

    def _print(self, text: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)
