"""What the pool costs: the time of a batch against the sum of its gangs' own render times.

Run alone on a quiet machine: ``python tests/bench/pool.py``. Prints one row of a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from imax_dist.jobs.batch import Batch, load_pool_settings, run_batch
from imax_dist.jobs.job import Job
from imax_dist.jobs.make_job import make_job
from imax_dist.pipeline.request import Request


def jobs(count: int) -> list[Job]:
    return [
        make_job(
            Request("a red sun over the sea", size="128x128", steps=6, seed=seed),
            name=f"poster-{seed:03}",
            position=seed,
        )
        for seed in range(count)
    ]


def overhead(out: Path, *, posters: int, gangs: int, ranks: int) -> tuple[float, float]:
    """(milliseconds a poster beside the rendering, seconds a poster within it)."""
    settings = load_pool_settings("local", {"gangs": gangs, "ranks": ranks, "checkpoint_every": 0})
    run_batch(Batch(out, settings, jobs(posters)))
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    busy = spans(events)
    own = sum(event["seconds"] for event in events if event["event"] == "job.done")
    return 1000 * (busy - own) / posters, own / posters


def spans(events: list[dict[str, str]]) -> float:
    """Seconds from each gang's first start to its last poster, all gangs together."""
    from datetime import datetime

    total = 0.0
    for gang in {event["gang"] for event in events if event["event"] == "job.started"}:
        own = [event for event in events if event.get("gang") == gang]
        starts = [datetime.fromisoformat(event["ts"]) for event in own if event["event"] == "job.started"]
        ends = [datetime.fromisoformat(event["ts"]) for event in own if event["event"] == "job.done"]
        total += (max(ends) - min(starts)).total_seconds()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posters", type=int, default=60)
    options = parser.parse_args()
    print("| gangs x ranks | posters | render s a poster | pool overhead ms a poster |\n|---|---|---|---|")
    for gangs, ranks in ((1, 1), (1, 2), (2, 1)):
        with tempfile.TemporaryDirectory(prefix="imax-bench-") as name:
            extra, own = overhead(Path(name), posters=options.posters, gangs=gangs, ranks=ranks)
        print(f"| {gangs} x {ranks} | {options.posters} | {own:.3f} | {extra:.1f} |", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
