"""How requests wake the pool.

Apart because two threads meet here, the application's and the pool's, and nowhere else without the store.
"""

from __future__ import annotations

import threading
import time

LEAST_S = 0.1
"""Between two looks at the queue that requests have caused; a look costs milliseconds."""


class Bell:
    """Rung by requests, heard by the pool."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._rung = False
        self._heard_at = time.monotonic()

    def ring(self) -> None:
        """The queue has changed."""
        self._event.set()

    def pause(self, seconds: float) -> None:
        """Wait, but not once it rings."""
        if self._event.wait(seconds):
            self._event.clear()
            self._rung = True

    def heard(self) -> bool:
        """Whether it rang since the last time, and it is time to look."""
        now = time.monotonic()
        if not self._rung or now - self._heard_at < LEAST_S:
            return False
        self._rung, self._heard_at = False, now
        return True
