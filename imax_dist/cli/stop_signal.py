"""SIGTERM and Ctrl-C: the first finishes the step or band and checkpoints, the second leaves at once.

The checkpoint of the last finished step is written when the first comes: machines are taken away in less time
than a step may need. Where the main thread then stays in a call of a library, in which no handler of Python
runs, another thread ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from imax_dist.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE_S = 120.0
"""From the first signal, or from the end of its checkpoint, until a call that does not return is given up."""


class StopSignal:
    """Callable: has someone asked this process to stop?

    ``quiet``: another rank says so to the user. ``write_line`` prints a line while something else
    draws on stderr.
    """

    def __init__(self, *, quiet: bool = False, write_line: Callable[[str], None] | None = None) -> None:
        self.requested = False
        self.quiet = quiet
        self._write_line = write_line or _to_stderr
        self._act: Callable[[], None] | None = None
        self.arm()

    def arm(self) -> StopSignal:
        """Set the handlers, again where another library has set its own; returns itself."""
        for number in SIGNALS:
            signal.signal(number, self._handle)
        return self

    def at_once(self, act: Callable[[], None]) -> None:
        """Call ``act`` from now on, in place of an earlier one, when a signal comes.

        In a thread of its own: the main one, which calls this, may wait in a library, where no handler runs.
        """
        if self._act is None:
            read_end, write_end = os.pipe()
            os.set_blocking(write_end, False)
            signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
            threading.Thread(target=self._listen, args=(read_end,), daemon=True, name="stop signal").start()
        self._act = act

    def _listen(self, read_end: int) -> None:
        received = 0
        while numbers := os.read(read_end, 64):
            stops = [n for n in numbers if n in SIGNALS and signal.getsignal(n) == self._handle]
            received += len(stops)
            if received > 1:
                os._exit(128 + stops[-1])  # the main thread may wait where its handler does not run
            if stops:
                threading.Thread(target=self._save_and_wait, daemon=True, name="last step").start()

    def _save_and_wait(self) -> None:
        if self._act is not None:
            with suppress(Exception):  # the end of the step says what is wrong with the folder
                self._act()
        time.sleep(PATIENCE_S)
        if self.requested:
            return
        if not self.quiet:
            self._write_line("stopped in a call that did not return; run the same command again to resume")
        os._exit(Preempted.exit_code)

    def __call__(self) -> bool:
        return self.requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested:
            os._exit(128 + number)
        self.requested = True
        if not self.quiet:
            self._write_from_handler("stopping after this step; a second signal stops at once")

    def _write_from_handler(self, text: str) -> None:
        """What the signal interrupted may be a write to stderr, which one thread cannot enter twice."""
        try:
            self._write_line(text)
        except RuntimeError:
            threading.Thread(target=self._write_line, args=(text,), daemon=True, name="stop note").start()


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
