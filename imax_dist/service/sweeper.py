"""What is swept every hour: old uploads, calls made, and posters and events that are not to be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imax_dist.jobs.retention import chunks, clear, forget_events
from imax_dist.jobs.settings import Keep
from imax_dist.jobs.store import Store, Webhooks
from imax_dist.service.service import Service

CALLS_S = 86_400.0
"""Calls that were made are kept this long."""
IN_USE = ("queued", "running", "proofed", "failed", "cancelled")
"""States of jobs whose guides are kept."""


@dataclass(frozen=True)
class Sweeper:
    """Files go beside the writer, on which every submission waits; rows go there, some at a time."""

    service: Service
    store: Store
    keep: Keep
    log: Callable[[dict[str, Any]], None]

    async def sweep(self) -> None:
        """Once. Raises ImaxError, OSError."""
        service, store, keep = self.service, self.store, self.keep
        await service.read(lambda: service.uploads.remove_old(self._in_use()))
        cleared = await service.read(lambda: clear(store, service.out, keep))
        for problem in cleared.problems:
            self.log({"event": "note", "level": "warning", "text": problem})
        for rows in chunks(cleared.gone):
            await service.write(lambda rows=rows: store.forget(rows))  # type: ignore[misc]
        await service.write(lambda: forget_events(store, keep))
        await service.write(lambda: Webhooks(store.database).forget(CALLS_S))

    def _in_use(self) -> set[str]:
        rows = self.service.queue.rows(states=IN_USE)
        return {str(row.request.get("guide")) for row in rows if row.request.get("guide")}
