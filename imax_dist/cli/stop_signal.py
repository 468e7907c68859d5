"""SIGTERM and Ctrl-C: the first finishes the step or band and checkpoints, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Callable: has someone asked this process to stop?

    ``quiet``: another rank says so to the user. ``say`` prints a line where something else draws on stderr.
    """

    def __init__(self, *, quiet: bool = False, say: Callable[[str], None] | None = None) -> None:
        self.asked = False
        self.quiet = quiet
        self._say = say or _to_stderr
        self.arm()

    def arm(self) -> StopSignal:
        """Set the handlers, again where another library has set its own; returns itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        return self

    def __call__(self) -> bool:
        return self.asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        if not self.quiet:
            self._say("stopping after this step; once more to leave at once")


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
