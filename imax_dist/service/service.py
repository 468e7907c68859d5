"""What every route needs: the queue, the limits, who may ask, and what is known about running jobs."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends
from starlette.requests import Request as HttpRequest

from imax_dist.jobs.store import Queue, Row
from imax_dist.output.own_files import is_name
from imax_dist.service.access import Client, Door
from imax_dist.service.feed import Feed
from imax_dist.service.job_view import Views
from imax_dist.service.refusals import Refused, not_found
from imax_dist.service.room import Room
from imax_dist.service.settings import ServiceSettings
from imax_dist.service.submissions import Submissions
from imax_dist.service.uploads import Uploads

Value = TypeVar("Value")


def nothing() -> None:
    """Nobody is told."""


@dataclass
class Health:
    """What probes are told; set by the server, read by the application."""

    ready: bool = False
    draining: bool = False
    failure: str = ""
    turned: float = field(default_factory=time.monotonic)
    """When the pool last looked at its gangs."""
    failing: dict[str, str] = field(default_factory=dict)
    """What is wrong with which chore (chores.py)."""


@dataclass
class Service:
    """The application's parts; one writer, many readers."""

    out: Path
    settings: ServiceSettings
    queue: Queue
    door: Door
    feed: Feed
    views: Views
    uploads: Uploads
    submissions: Submissions
    writer: ThreadPoolExecutor
    room: Room
    ahead: Callable[[Row], int]
    """Queued jobs that are taken before this one, as the pool saw them last: without a scan of the queue."""
    stalled_s: float = 1800.0
    """Work without any sign for longer stands still: the pool's longest deadline."""
    health: Health = field(default_factory=Health)
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One pyramid at a time."""
    streams: Counter[str] = field(default_factory=Counter)
    """Event streams that are open, by whose they are."""
    wake_pool: Callable[[], None] = nothing
    before_scrape: Callable[[], None] = nothing
    """Brings the metrics of the queue up to date."""

    def load_early(self) -> None:
        """Import what the first requests would wait for, and spare garbage collection all that is there.

        It stays as long as the process, and a look through its 300 000 objects stops every request for 0.2 s.
        """
        self.submissions.editors()
        gc.collect()
        gc.freeze()

    async def read(self, look: Callable[[], Value]) -> Value:
        """A look into store or disk, beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(None, look)

    async def write(self, change: Callable[[], Value]) -> Value:
        """A change of the store, one at a time; the pool hears of it at once."""
        made = await asyncio.get_running_loop().run_in_executor(self.writer, change)
        self.wake_pool()
        return made

    async def client(self, secret: str) -> Client:
        """Whose token it is. Raises Refused (401)."""
        known = self.door.known(secret)
        return known if known is not None else await self.read(lambda: self.door.find(secret))

    async def row(self, job_id: str, client: Client) -> Row:
        """A job that the client may see. Raises Refused (404) for any other."""
        return await self.read(lambda: self._find(job_id, client))

    async def seen(self, job_id: str, client: Client) -> dict[str, Any]:
        """The job as the client sees it, with its place in the queue. Raises Refused (404)."""
        return await self.read(lambda: self.view(self._find(job_id, client)))

    def view(self, row: Row) -> dict[str, Any]:
        """The same of a row."""
        return self.views.view(row, ahead=self.ahead(row) if row.state_name == "queued" else None)

    def _find(self, job_id: str, client: Client) -> Row:
        row = self.queue.find(job_id) if is_name(job_id) else None
        if row is None or not client.may_see(row.owner):
            raise not_found("this job")
        return row

    async def changed(
        self, job_id: str, client: Client, change: Callable[[Sequence[str]], list[str]], what: str
    ) -> dict[str, Any]:
        """Cancel, retry or approve one job. Raises Refused (404, or 409 in a state without it)."""
        row = await self.row(job_id, client)
        if not await self.write(lambda: change([job_id])):
            raise Refused(409, f"a job that is {row.state_name} cannot be {what}", code="wrong_state")
        self.feed.wake(job_id)
        return await self.seen(job_id, client)


async def service_of(request: HttpRequest) -> Service:
    """The running service."""
    return cast(Service, request.app.state.service)


async def client_of(request: HttpRequest) -> Client:
    """Who asks; the request is counted. Raises Refused (401, 429)."""
    service = await service_of(request)
    secret, _ = service.door.secret_of(request)
    client = await service.client(secret)
    request.state.client = client.name
    service.door.count(client)
    return client


Here = Annotated[Service, Depends(service_of)]
Asking = Annotated[Client, Depends(client_of)]
