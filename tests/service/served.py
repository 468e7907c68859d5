"""A service as it runs, in this process: real HTTP, a real store and, where wanted, gangs in threads."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from http_client import Client
from prometheus_client import CollectorRegistry
from thread_gang import ThreadGang

from imax_dist.errors import Preempted
from imax_dist.events import both
from imax_dist.jobs.board import Board
from imax_dist.jobs.driver import drive
from imax_dist.jobs.metrics import PoolMetrics
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.sizing import Host
from imax_dist.jobs.store import Store, Tokens, open_store
from imax_dist.jobs.task import GangFactory
from imax_dist.service.access import add_token
from imax_dist.service.bell import Bell
from imax_dist.service.http import application, listen_at
from imax_dist.service.log import Log
from imax_dist.service.metrics import prometheus
from imax_dist.service.server import Fleet, Serving, make_service
from imax_dist.service.service import Service
from imax_dist.service.settings import ServiceSettings

LOOPBACK = "127.0.0.1"
HERE = Host(cores=2, gpus=0, gpu="", memory=8e9)


@dataclass
class Served:
    """What a test sees of it."""

    out: Path
    base: str
    service: Service
    store: Store
    registry: CollectorRegistry
    log: io.StringIO
    secrets: dict[str, str] = field(default_factory=dict)

    def client(self, name: str = "shop") -> Client:
        return Client(self.base, self.secrets.get(name, ""))


@contextmanager
def served(
    out: Path,
    settings: ServiceSettings | None = None,
    *,
    tokens: dict[str, str] | None = None,
    pool: PoolSettings | None = None,
    gangs: bool = False,
    build: GangFactory | None = None,
    place: str = "",
) -> Iterator[Served]:
    """A service over ``out``; ``tokens`` are names and roles, none for an open one; ``gangs`` render.

    ``build`` makes the gangs, by default threads that render; ``place`` is a database's URL, by default a
    file in ``out``.
    """
    pool = pool or PoolSettings(device="cpu", threads=1, checkpoint_every=0)
    serving = Serving(out, pool, settings or ServiceSettings(), place or out / "batch.sqlite", port=0)
    door, stream, registry, bell = listen_at(LOOPBACK, 0), io.StringIO(), CollectorRegistry(), Bell()
    with closing(door), closing(open_store(serving.place)) as store:
        secrets = {
            name: add_token(Tokens(store.database), name, role) for name, role in (tokens or {}).items()
        }
        service = make_service(serving, store, Fleet(pool, [HERE]), wake=bell.ring)
        log = Log(stream)
        with application(service, registry, door, log=log, store=store, keep=pool.keep):
            base = f"http://{LOOPBACK}:{door.getsockname()[1]}"
            made = Served(out, base, service, store, registry, stream, secrets)
            service.health.ready = True
            with rendering(made, serving, bell, log, build=build or ThreadGang) if gangs else nullcontext():
                yield made


@contextmanager
def rendering(made: Served, serving: Serving, bell: Bell, log: Log, *, build: GangFactory) -> Iterator[None]:
    """A pool in a thread, as the driver of its store."""
    ended = threading.Event()
    with drive(serving.place, out=made.out) as (store, check):
        board = Board(store, open_ended=True, patience_s=60.0)
        board.note = lambda text: log({"event": "note", "text": text})
        made.service.ahead = board.ahead
        metrics = PoolMetrics(board, kinds=prometheus(made.registry))
        listen = both(both(log.listener(), made.service.feed), metrics)
        deps = PoolDeps(listen=listen, stop=ended.is_set, check=check, sleep=bell.pause, news=bell.heard)
        pool = Pool(board, build, serving.pool, out=made.out, deps=deps)

        def run() -> None:
            try:
                with suppress(Preempted):
                    pool.run()
            finally:
                made.service.health.draining = True  # nobody waits for a pool that is gone

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(60)


def wait_until(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found
