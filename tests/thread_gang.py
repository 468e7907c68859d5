"""A gang without Ray: what is around it is tested at the cost of its renders alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from imax_dist.jobs.rank import Rank
from imax_dist.jobs.task import Finished, Outcome, Refused, Report, Stopped, Task
from imax_dist.pipeline.ranks import ParallelSettings


class ThreadGang:
    """A gang of one rank in a thread: the real Rank, without Ray around it."""

    ranks = 1

    def __init__(self, name: str, ranks: int) -> None:
        assert ranks == 1
        self.name = name
        self._rank = Rank(0, 1, device="cpu", threads=1)
        self._rank.join("", 0, ParallelSettings())
        self._seen = 0
        self._ended: dict[str, dict[str, Any]] = {}

    def start(self, tasks: Sequence[Task]) -> None:
        threading.Thread(target=self._run, args=(tasks[0],), daemon=True).start()

    def _run(self, task: Task) -> None:
        self._ended[task.job_id] = self._rank.run(task)

    def poll(self) -> Report:
        ended, self._ended = self._ended, {}
        events, _ = self._rank.events(self._seen, 0.0)
        self._seen += len(events)
        return Report(events, {job: outcome(said) for job, said in ended.items()})

    def stop(self, job_id: str) -> None:
        self._rank.stop(job_id)

    def draining(self) -> bool:
        return False

    def destroy(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}


def outcome(said: dict[str, Any]) -> Outcome:
    ((kind, details),) = said.items()
    if kind == "finished":
        return Finished(details)
    if kind == "stopped":
        return Stopped()
    assert kind == "refused", said
    return Refused(**details)
