"""How long studies will take, before a picture is drawn: what the cache lacks, by the planner's seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from imax_dist.models.load import describe_model
from imax_dist.models.spec import ModelSpec
from imax_dist.pipeline.request import Request
from imax_dist.planner.cluster import parse_cluster
from imax_dist.planner.poster import poster_time
from imax_dist.planner.split import Split
from imax_dist.planner.workload import workloads
from imax_dist.study.experiments.cell import Cell
from imax_dist.study.experiments.draw import ResultCache
from imax_dist.study.experiments.velocity_loss import TIMES
from imax_dist.wording import duration, plural

CLUSTER = "1xcpu"


@dataclass(frozen=True)
class Forecast:
    """Pictures of some studies, each counted once; ``seconds`` of one CPU core draw those not ``there``."""

    pictures: int
    there: int
    seconds: float

    def sentence(self, processes: int, *, timed: bool = True) -> str:
        """``2227 pictures, 400 already drawn, about 6.1 h on 2 processes``; the time if ``timed``."""
        text = f"{plural(self.pictures, 'picture')}, {self.there} already drawn"
        if self.there == self.pictures or not timed:
            return text
        shared = duration(self.seconds / processes)
        return f"{text}, about {shared} on {plural(processes, 'process', 'processes')}"


def forecast(cells: Iterable[Cell], cache: ResultCache) -> Forecast:
    """What drawing ``cells`` takes on a CPU. Not counted: measuring, and pictures measured again."""
    specs: dict[str, ModelSpec] = {}
    missing: dict[str, Cell] = {}
    keys: set[str] = set()
    for cell in cells:
        model = cell.variant.model or cell.model
        spec = specs[model] = specs.get(model) or describe_model(model)
        key = cell.key(spec)
        if key not in keys and not cache.holds(key):
            missing[key] = cell
        keys.add(key)
    return Forecast(len(keys), len(keys) - len(missing), sum(drawing_seconds(list(missing.values()))))


def drawing_seconds(cells: list[Cell]) -> list[float]:
    """Of one CPU core, by the planner, one a cell; those that differ in their scene alone share one. A true
    render is free."""
    cluster, known = parse_cluster(CLUSTER), dict[int, float]()
    works = workloads([_drawn(cell) for cell in cells], device="cpu")
    for work in works:
        if id(work) not in known:
            known[id(work)] = poster_time(work, Split(), cluster).total
    free = [cell.variant.enlarge == "truth" for cell in cells]
    return [
        0.0 if costs_nothing else known[id(work)] for costs_nothing, work in zip(free, works, strict=True)
    ]


def _drawn(cell: Cell) -> Request:
    """What takes the cell's time: of an enlargement the native picture, of a loss a forward pass a time."""
    if cell.kind == "velocity_loss":
        return replace(cell.request(), preset="direct", method={}, steps=len(TIMES))
    return cell.native_request() if cell.variant.enlarge else cell.request()
