"""A real rank with defects that certain jobs bring out."""

from __future__ import annotations

from typing import Any

from imax_dist.jobs.rank import Rank
from imax_dist.jobs.task import Task
from imax_dist.pipeline import render


class FaultyRank(Rank):
    """Job ``raised``: rank 1 raises on the first attempt. Job ``greedy``: out of memory, always."""

    def run(self, task: Task) -> dict[str, Any]:
        original = render.make_plan
        fault = self._fault(task)
        if fault is not None:
            render.make_plan = fault
        try:
            return super().run(task)
        finally:
            render.make_plan = original

    def _fault(self, task: Task) -> Any:
        def out_of_memory(*arguments: Any) -> Any:
            raise MemoryError("planted")

        def defect(*arguments: Any) -> Any:
            raise RuntimeError("planted")

        if task.job_id == "greedy":
            return out_of_memory
        return defect if task.job_id == "raised" and task.attempt == 1 and self.rank == 1 else None
