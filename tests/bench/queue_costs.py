"""What a long queue costs: ``python -m tests.bench.queue_costs [POSTERS]``, CPU seconds a command."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from imax_dist.jobs.control import all_rows, cancel, retry
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request


def main() -> None:
    """Queue that many posters, look at them, cancel and retry all."""
    posters = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    jobs = [make_job(Request("x"), name=f"job-{i}", position=i, method={}) for i in range(posters)]
    ids = [job.id for job in jobs]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        store = Store(store_path(out))
        measured = {
            "queue": seconds(lambda: add_jobs(store, jobs, out)),
            "queue again": seconds(lambda: add_jobs(store, jobs, out)),
        }
        store.close()
        measured |= {
            "status": seconds(lambda: all_rows(out)),
            "cancel all": seconds(lambda: cancel(out, ids)),
            "retry all": seconds(lambda: retry(out, ids)),
        }
    print(f"{posters} posters: " + ", ".join(f"{name} {spent:.2f} s" for name, spent in measured.items()))


def seconds(act: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    act()
    return time.process_time() - began


if __name__ == "__main__":
    main()
