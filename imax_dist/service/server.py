"""``imax serve``: a pool over an open queue in the main thread, the application in another, until SIGTERM."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from imax_dist.errors import BadValue, CannotWrite, ImaxError, Preempted
from imax_dist.events import BatchNote, ClusterStarting, both
from imax_dist.jobs.batch import batch_log
from imax_dist.jobs.board import Board
from imax_dist.jobs.cluster import ray_cluster
from imax_dist.jobs.deliver import require_target
from imax_dist.jobs.driver import drive
from imax_dist.jobs.metrics import PoolMetrics
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.ray_gangs import RayGangs, pool_parallel
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.sizing import Host, open_pool, planned_seconds, ray_hosts, remedy, this_host
from imax_dist.jobs.store import Queue, Store, Tokens, UploadQuota
from imax_dist.output.atomic import require_writable
from imax_dist.service.access import Door
from imax_dist.service.arrivals import Arrivals
from imax_dist.service.bell import Bell
from imax_dist.service.estimates import Estimates
from imax_dist.service.feed import Feed
from imax_dist.service.guard import LOOPBACK
from imax_dist.service.http import application, listen_at
from imax_dist.service.job_view import Views
from imax_dist.service.log import Log
from imax_dist.service.metrics import prometheus
from imax_dist.service.room import Room
from imax_dist.service.service import Service
from imax_dist.service.settings import ServiceSettings, limits_of
from imax_dist.service.submissions import Submissions
from imax_dist.service.uploads import Uploads
from imax_dist.wording import plural

NEVER_S = 10 * 365 * 86_400.0
"""A service waits for its disk or database as long as it takes."""


@dataclass(frozen=True)
class Serving:
    """What to serve, where."""

    out: Path
    pool: PoolSettings
    service: ServiceSettings
    place: Path | str
    """Of the store: a file, or a database by its URL."""
    ray: str = "local"
    host: str = "127.0.0.1"
    port: int = 8000

    def needs_tokens(self, tokens: Tokens) -> bool:
        """Whether requests must bring one: always, but on loopback as long as there never was one.

        Raises BadValue for another address without any token: nobody could use it, or everybody.
        """
        if any(token.revoked is None for token in tokens.all()):
            return True
        if self.host in LOOPBACK:
            return tokens.ever()
        raise BadValue(
            f"no token exists yet, and {self.host} can be reached from other machines; create one: imax "
            f"serve --out {self.out} --add-token NAME"
        )


def run_service(
    serving: Serving, *, arm: Callable[[], Callable[[], bool]], log: Log, announce: Callable[[str], None]
) -> None:
    """Serve until asked to stop; ``arm`` as in ``run_batch``, ``announce`` gets the address once it is open.

    Raises Preempted if jobs are left, FolderBusy, ClusterUnavailable, CannotWrite.
    """
    stop_requested = arm()
    pool_parallel(serving.pool)
    if serving.pool.deliver:
        require_target(serving.pool.deliver)
    require_writable(serving.out)
    bell = Bell()
    with (
        contextlib.closing(listen_at(serving.host, serving.port)) as door,
        drive(serving.place, out=serving.out) as (store, check),
    ):
        fleet = Fleet(open_pool(serving.pool, [this_host()]), [this_host()])
        service = make_service(serving, store, fleet, wake=bell.ring)
        board = Board(store, open_ended=True, patience_s=NEVER_S)
        service.ahead = board.ahead
        wait_patiently(board, service, stop_requested)
        registry = CollectorRegistry()
        listen = both(both(log.listener(), service.feed), batch_log(serving.out / "events.jsonl"))
        board.note = lambda text: listen(BatchNote(text))
        service.load_early()
        with application(service, registry, door, log=log, store=store, keep=serving.pool.keep):
            announce(f"http://{serving.host}:{door.getsockname()[1]}/")
            listen(ClusterStarting(serving.ray))
            with ray_cluster(serving.ray, fleet.pool, note=board.note):
                if serving.ray != "local":
                    fleet.hosts = ray_hosts()
                    fleet.pool = open_pool(serving.pool, fleet.hosts)
                metrics = PoolMetrics(board, kinds=prometheus(registry))
                listen, service.before_scrape = both(listen, metrics), metrics.queue
                deps = PoolDeps(
                    listen=listen,
                    stop=_stop(arm(), service),
                    check=check,
                    sleep=bell.pause,
                    news=bell.heard,
                    remedy=partial(remedy, settings=fleet.pool, hosts=fleet.hosts),
                )
                service.health.ready = True
                gangs = RayGangs(fleet.pool, own_ray=serving.ray == "local")
                pool = Pool(board, gangs, fleet.pool, out=serving.out, deps=deps)
                _run_until_stopped(pool, service)


def _run_until_stopped(pool: Pool, service: Service) -> None:
    """Raises Preempted if jobs are left, and what ended the pool otherwise."""
    try:
        pool.run()
    except Preempted:
        if service.health.failure:
            raise ImaxError(service.health.failure) from None
        left = sum(pool.board.counts[name] for name in ("queued", "running"))
        if left:
            text = f"stopped with {plural(left, 'job')} waiting; run the same command again to resume"
            raise Preempted(text) from None
    except BaseException as error:
        service.health.failure = f"the pool ended: {type(error).__name__}"
        raise
    finally:
        service.health.draining = True


@dataclass
class Fleet:
    """The pool and the machines it has, which are known once Ray is."""

    pool: PoolSettings
    hosts: Sequence[Host]


def make_service(serving: Serving, store: Store, fleet: Fleet, *, wake: Callable[[], None]) -> Service:
    """The application's parts on a connection of their own: the driver's may be refused, theirs not."""
    settings, out = serving.service, serving.out
    limits = fleet.pool.deadlines
    queue, tokens = Queue(store.database), Tokens(store.database)
    estimates = Estimates(lambda request: planned_seconds(request, fleet.pool, fleet.hosts))

    def learn(job: str, seconds: float) -> None:
        with contextlib.suppress(CannotWrite):  # the pool tells of it, and a store that is away ends no pool
            if (row := queue.find(job)) is not None:
                estimates.learn(row.job.request, seconds)

    feed = Feed(learn)
    writer = ThreadPoolExecutor(1, thread_name_prefix="imax-writer")
    room = Room.of(out, serving.place, settings.least_free_mib)
    uploads = Uploads(out, settings, quota=UploadQuota(store.database), room=room)

    def gangs() -> int:
        return fleet.pool.gangs

    arrivals = Arrivals(queue, settings, estimates, gangs, writer)
    return Service(
        out=out,
        settings=settings,
        queue=queue,
        door=Door(tokens, settings, required=serving.needs_tokens(tokens)),
        feed=feed,
        views=Views(out, estimates, feed, settings.loras, gangs),
        uploads=uploads,
        submissions=Submissions(limits_of(settings), settings, uploads, estimates, arrivals),
        writer=writer,
        room=room,
        ahead=queue.ahead,
        stalled_s=max(limits.first_step, limits.stage) + limits.join,
        wake_pool=wake,
    )


def _stop(stop_requested: Callable[[], bool], service: Service) -> Callable[[], bool]:
    """The signal, seen by the probes as well: no more requests should come."""

    def stop() -> bool:
        service.health.turned = time.monotonic()
        if stop_requested():
            service.health.draining = True
        return service.health.draining

    return stop


def wait_patiently(board: Board, service: Service, stop_requested: Callable[[], bool]) -> None:
    """A store that is away is waited for, which is not a standstill; a stop ends the wait."""

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        service.health.turned = time.monotonic()
        if stop_requested():
            board.patience_s = 0.0

    board.sleep = sleep
