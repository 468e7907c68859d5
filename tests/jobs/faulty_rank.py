"""A real rank with defects that certain jobs bring out."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from imax_dist.errors import BadConfig, MissingInput
from imax_dist.jobs.rank import Rank
from imax_dist.jobs.task import Task
from imax_dist.parallel import devices
from imax_dist.parallel.devices import Device
from imax_dist.pipeline import prepare, renderer
from imax_dist.pipeline.ranks import ParallelSettings


class FaultyRank(Rank):
    """What a job's name says goes wrong.

    ``raised``: rank 1 raises on the first attempt. ``greedy``: torch is asked for more memory than there is,
    ``large``: only on a gang of one. ``unloaded``: rank 0 finds no text encoder.
    """

    def run(self, task: Task) -> dict[str, Any]:
        module, name, fault = self._fault(task)
        original = getattr(module, name)
        setattr(module, name, fault or original)
        try:
            return super().run(task)
        finally:
            setattr(module, name, original)

    def _fault(self, task: Task) -> tuple[ModuleType, str, Any]:
        alone = self.world_size == 1
        if task.job_id == "greedy" or (task.job_id == "large" and alone):
            return prepare, "make_plan", out_of_memory
        if task.job_id == "raised" and task.attempt == 1 and self.rank == 1:
            return prepare, "make_plan", defect
        if task.job_id == "unloaded" and self.rank == 0:
            return renderer, "load_requested", nothing_there
        return prepare, "make_plan", None


def out_of_memory(*arguments: Any) -> Any:
    """A petabyte: torch's own error, not one of ours."""
    return torch.empty(1 << 50)


def defect(*arguments: Any) -> Any:
    raise RuntimeError("planted")


def nothing_there(*arguments: Any, **options: Any) -> Any:
    raise MissingInput("model embedded: its text encoder is not there")


class RankElsewhere(Rank):
    """Says that it is on a host of its own."""

    def join(self, host: str, port: int, parallel: ParallelSettings) -> dict[str, Any]:
        own = Device("cpu", f"host-{self.rank}", "")
        devices.own_device = lambda _: own
        return super().join(host, port, parallel)


class MisfitRank(Rank):
    """Says that it will never work with the others."""

    def join(self, host: str, port: int, parallel: ParallelSettings) -> dict[str, Any]:
        raise BadConfig("parallel: rank 0 computes on an H100, rank 1 on an L4")
