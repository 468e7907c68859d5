"""What a long queue costs: ``python -m tests.bench.queue_costs [POSTERS] [--store postgresql://...]``.

Wall and CPU seconds of this process, a line a command; a table for BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imax_dist.errors import Preempted
from imax_dist.jobs.board import Board
from imax_dist.jobs.control import all_rows, cancel, counts, retry
from imax_dist.jobs.job import Job
from imax_dist.jobs.manifest.read import read_manifest
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.pool_deps import PoolDeps
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.settings import Limits, PoolSettings
from imax_dist.jobs.store import Store, Submission, open_store
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request

TURNS = 1000
REST_S = 10.0


def main() -> None:
    """Queue that many posters, look at them, submit, list, cancel and retry."""
    parser = argparse.ArgumentParser()
    parser.add_argument("posters", type=int, nargs="?", default=100_000)
    parser.add_argument("--store", help="an empty database in place of a file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        place = options.store or out
        manifest = out / "manifest.jsonl"
        manifest.write_text(
            "".join(
                json.dumps({"id": f"job-{i}", "prompt": f"a red sun {i}", "size": "1024x1024", "seed": i})
                + "\n"
                for i in range(options.posters)
            )
        )
        jobs: list[Job] = []
        limits = Limits(posters=options.posters)
        print(f"{options.posters} posters\n\n| command | wall s | CPU s |\n|---|---|---|")
        told("read the manifest", lambda: jobs.extend(read_manifest(manifest, limits).jobs))
        store = open_store(options.store or store_path(out))
        told("add jobs", lambda: add_jobs(store, jobs, out))
        told("add them again", lambda: add_jobs(store, jobs, out))
        look(place, store, out)
        ids = [job.id for job in jobs][:5000]
        told("cancel 5000", lambda: cancel(place, ids))
        told("retry them", lambda: retry(place, ids))
        store.close()


def look(place: Path | str, store: Store, out: Path) -> None:
    """Each once, as a service or a person asks."""
    request = Request("x")
    told("submit one", lambda: store.submit(Submission(Job("one", request), owner="me", key="k")))
    row = store.find("one")
    assert row is not None
    told("its place in the queue", lambda: store.ahead(row))
    told("counts by state", store.counts)
    told("a page of 100, the newest", store.page)
    told("a page of 100 from the middle", lambda: store.page(after=row.number // 2))
    told("a page of queued ones", lambda: store.page(states=["queued"]))
    told("a page of failed ones (none)", lambda: store.page(states=["failed"]))
    told("status: counts", lambda: counts(place))
    told("status: what runs or failed", lambda: all_rows(place, states=("running", "failed")))
    told("status --limit 0: every row", lambda: all_rows(place))
    boards: list[Board] = []
    told("a driver starts", lambda: boards.append(Board(store)))
    told("a look (once a second)", boards[0].look)
    told("cancel one", lambda: store.cancel(["one"]))
    turns(boards[0], out)
    rest(store, out)


def turns(board: Board, out: Path) -> None:
    """The loop of a pool without a free gang; its sleep is left out."""
    left = [TURNS]

    def stop() -> bool:
        left[0] -= 1
        return left[0] <= 0

    never_built: Callable[..., object] = lambda *_: None  # noqa: E731
    deps = PoolDeps(stop=stop, sleep=lambda _: None, background=lambda _: Waiting())  # type: ignore[arg-type,return-value]
    pool = Pool(board, never_built, PoolSettings(), out=out, deps=deps)  # type: ignore[arg-type]
    began = time.process_time()
    with suppress(Preempted):
        pool.run()
    assert left[0] <= 0
    spent = (time.process_time() - began) / TURNS
    print(f"| a turn of the pool while nothing happens | | {spent:.6f} |")


def rest(store: Store, out: Path) -> None:
    """A driver of an open queue for which there is no work: looks once a second, no gang, no Ray."""
    end = time.monotonic() + REST_S
    deps = PoolDeps(stop=lambda: time.monotonic() > end)
    board = Board(store, ids=(), open_ended=True)
    pool = Pool(board, lambda *_: None, PoolSettings(), out=out, deps=deps)  # type: ignore[arg-type,return-value]
    wall, spent = time.monotonic(), time.process_time()
    with suppress(Preempted):
        pool.run()
    share = (time.process_time() - spent) / (time.monotonic() - wall)
    print(f"| a driver at rest, of a core | | {100 * share:.2f} % |")


class Waiting:
    """A gang that is never ready."""

    def done(self) -> bool:
        return False

    def add_done_callback(self, _: object) -> None:
        pass


def told(name: str, act: Callable[[], object]) -> None:
    """Run it and print a line."""
    wall, spent = time.monotonic(), time.process_time()
    act()
    print(f"| {name} | {time.monotonic() - wall:.3f} | {time.process_time() - spent:.3f} |", flush=True)


if __name__ == "__main__":
    main()
