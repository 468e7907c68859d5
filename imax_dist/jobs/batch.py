"""A whole batch: manifest jobs into the store, gangs on Ray, until every poster is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ParamSpec

from imax_dist.config import load_config
from imax_dist.errors import BadValue, MissingInput
from imax_dist.events import (
    BatchDone,
    BatchNote,
    BatchPlanned,
    BatchStarted,
    CheckpointStarted,
    CheckpointWritten,
    ClusterStarting,
    InJob,
    PoolEvent,
    PoolListener,
    PreviewWritten,
    Progress,
    StageDone,
    StageStarted,
    StepDone,
    both,
    ignore,
)
from imax_dist.events.log import append_to
from imax_dist.jobs.board import Board
from imax_dist.jobs.cluster import ray_cluster
from imax_dist.jobs.deliver import check_target, require_target
from imax_dist.jobs.driver import drive
from imax_dist.jobs.job import Job
from imax_dist.jobs.metrics import PoolMetrics
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.ray_gangs import RayGangs, pool_parallel
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.retention import prune
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.sizing import Host, fill_defaults_from_plan, ray_hosts, remedy, this_host
from imax_dist.jobs.store import Row
from imax_dist.jobs.store.files import store_path, store_paths
from imax_dist.jobs.store.store import is_url
from imax_dist.output.atomic import require_folder, require_writable
from imax_dist.pipeline.run import never
from imax_dist.settings_mapping import from_mapping as settings_from

Given = ParamSpec("Given")

NOT_LOGGED = (
    StepDone,
    Progress,
    StageStarted,
    StageDone,
    CheckpointStarted,
    CheckpointWritten,
    PreviewWritten,
)
"""In the job's own events; the batch's would be mostly these."""


LARGEST_LOG = 64 << 20
"""Bytes of the batch's events.jsonl; what was before is in events.jsonl.1, and what before that is gone."""
MOST_PLANNED = 5000
"""Waiting posters that the planner looks at."""
NO_SHARED_MEMORY = (
    "the batch's database is on a network or FUSE disk: it keeps a journal instead of a write-ahead log, "
    "and imax status may wait for the batch; --store puts it elsewhere"
)


@dataclass(frozen=True)
class Batch:
    """What to do where. ``jobs`` None resumes what the folder holds."""

    out: Path
    settings: PoolSettings
    jobs: Sequence[Job] | None
    ray: str = "local"
    shard: str | None = None
    proofs_only: bool = False
    store: str | None = None
    """A database, or a file elsewhere; None: ``batch.sqlite`` in ``out``."""
    alive: Path | None = None
    """Touched once a second while the pool's loop turns, or waits for a disk: for a probe from outside."""


def load_pool_settings(name: str, changes: dict[str, Any]) -> PoolSettings:
    """A file of configs/jobs, or a YAML file by its path, with ``changes`` laid over it."""
    mapping, where = load_config("jobs", name)
    given = {**mapping, **changes}
    left = [key for key in ("gangs", "ranks") if key not in given]
    return settings_from(PoolSettings, {"open": left, **given}, where=where)


def no_listener(board: Board) -> PoolListener:
    """Nobody watches."""
    del board
    return ignore


def no_signal() -> Callable[[], bool]:
    """Nobody can stop it."""
    return never


def run_batch(
    batch: Batch,
    *,
    watch: Callable[[Board], PoolListener] = no_listener,
    arm: Callable[[], Callable[[], bool]] = no_signal,
) -> list[Row]:
    """Render what is missing; the rows of this run's jobs at its end.

    ``watch`` gets the board before the first event. ``arm`` sets signal handlers and returns the stop signal,
    always the same one: it is called at once, and again when Ray has put its own handlers in their place.
    Raises FolderBusy, ClusterUnavailable, CannotWrite, Preempted.
    """
    arm()
    pool_parallel(batch.settings)
    if batch.settings.deliver:
        require_target(batch.settings.deliver)
    if batch.ray == "local" and batch.jobs is not None:
        fill_defaults_from_plan(batch.settings, [job.request for job in batch.jobs], [this_host()])
    place = store_of(batch)
    require_writable(batch.out)
    with drive(place, batch.shard, out=batch.out) as (store, check):
        prune(store, batch.out, batch.settings.keep)
        if batch.jobs is not None:
            add_jobs(store, batch.jobs, batch.out, deliver=batch.settings.deliver)
        ids = None if batch.jobs is None else [job.id for job in batch.jobs]
        board = Board(store, ids, patience_s=batch.settings.retry.disk_full)
        _run(batch, board, watch(board), arm, check=check)
        check()
        return board.rows()


def check_places(batch: Batch) -> None:
    """Raise now what ``run_batch`` would raise of where things lie; asks no network and writes nothing."""
    pool_parallel(batch.settings)
    if batch.settings.deliver:
        check_target(batch.settings.deliver)
    store_of(batch)
    require_folder(batch.out)


def store_of(batch: Batch) -> Path | str:
    """Where the jobs are kept. Raises MissingInput if there are none to resume, BadValue."""
    if batch.store is not None and is_url(batch.store):
        if batch.shard is not None:
            raise BadValue("--shard is for hosts that share no queue; with --store, start each without it")
        return batch.store
    path = store_path(batch.out, batch.shard) if batch.store is None else Path(batch.store)
    if batch.jobs is None and batch.store is not None and not path.is_file():
        raise MissingInput(f"{path} does not exist; give a manifest to begin it")
    if batch.jobs is None and not path.is_file():
        store_paths(batch.out)  # a mistyped folder holds no batch at all
        raise MissingInput(
            f"{batch.out} holds a batch, but {f'no shard {batch.shard}' if batch.shard else 'only shards'}"
            "; give a manifest, or the --shard it was begun with"
        )
    return path


def _run(
    batch: Batch,
    board: Board,
    listen: PoolListener,
    arm: Callable[[], Callable[[], bool]],
    *,
    check: Callable[[], None],
) -> None:
    listen = both(listen, batch_log(batch.out / "events.jsonl"))
    board.note = lambda text: listen(BatchNote(text))
    listen(BatchStarted(len(board.states), board.waits))
    if not board.store.shared:
        listen(BatchNote(NO_SHARED_MEMORY))
    if not board.over:
        settings = batch.settings
        if batch.ray == "local":
            settings = _planned(settings, board, [this_host()], listen)
        listen(ClusterStarting(batch.ray))
        with ray_cluster(batch.ray, settings, note=board.note):
            hosts = ray_hosts()
            settings = _planned(settings, board, hosts, listen)
            deps = PoolDeps(
                listen=both(listen, PoolMetrics(board)),
                stop=arm(),
                check=touching(batch.alive, check),
                remedy=partial(remedy, settings=settings, hosts=hosts),
            )
            board.sleep = touching(batch.alive, board.sleep)
            pool = Pool(
                board,
                RayGangs(settings, own_ray=batch.ray == "local"),
                settings,
                out=batch.out,
                proofs_only=batch.proofs_only,
                deps=deps,
            )
            pool.run()
    listen(BatchDone())


def touching(alive: Path | None, act: Callable[Given, None]) -> Callable[Given, None]:
    """``act``, and then the file ``alive`` is touched, if there is one."""

    def touch(*given: Given.args, **named: Given.kwargs) -> None:
        act(*given, **named)
        if alive is not None:
            with suppress(OSError):  # a probe's concern; the batch goes on
                alive.touch()

    return touch


def _planned(
    settings: PoolSettings, board: Board, hosts: Sequence[Host], listen: PoolListener
) -> PoolSettings:
    """Gangs and ranks for what is waiting, where nobody named them."""
    some = [job_id for job_id, _ in islice(board.waiting(), MOST_PLANNED)]
    requests = [job.request for job in board.store.jobs(some).values()]
    chosen, sentence = fill_defaults_from_plan(settings, requests, hosts)
    if sentence:
        listen(BatchPlanned(sentence, chosen.gangs, chosen.ranks))
    return chosen


def batch_log(path: Path) -> PoolListener:
    """A listener that writes a batch's ``events.jsonl``."""
    write = append_to(path, largest=LARGEST_LOG)

    def listen(event: PoolEvent) -> None:
        if not (isinstance(event, InJob) and isinstance(event.event, NOT_LOGGED)):
            with suppress(OSError):  # a log only: the store tells of a full disk
                write(event)

    return listen
