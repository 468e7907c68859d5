"""A gang on Ray: a placement group, one actor a rank, their own meeting point.

Ray restarts nothing here: one rank lost is the gang lost, destroyed whole and built anew (pool.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from imax_dist.errors import ClusterUnavailable
from imax_dist.events import InJob
from imax_dist.jobs.cluster import draining_nodes, has_gpus
from imax_dist.jobs.outcomes import cause_of, loss_of, most_telling, outcome_of
from imax_dist.jobs.rank import Rank
from imax_dist.jobs.settings import Deadlines, PoolSettings
from imax_dist.jobs.task import Finished, Lost, Outcome, Report, Task
from imax_dist.pipeline.ranks import ParallelSettings, load_parallel

POLL_S = 1.0
"""How long a rank holds a question for news before it answers that there is none."""
THREADS = 4
"""Of a rank's process: one works, one answers polls, one takes orders, one is spare."""


@dataclass(frozen=True)
class RayGangs:
    """Builds gangs as the pool's settings say."""

    settings: PoolSettings
    rank_class: type[Rank] = Rank

    def __call__(self, name: str, ranks: int) -> RayGang:
        """A gang of ``ranks`` that have joined. Raises ClusterUnavailable; then nothing is left of it."""
        _require_ray(name)
        bundle = self._bundle()
        group = placement_group([bundle] * ranks, strategy=self.settings.placement)
        actors: list[Any] = []
        deadline = time.monotonic() + self.settings.deadlines.build
        try:
            if not group.wait(self.settings.deadlines.build):
                _require_ray(name)
                raise ClusterUnavailable(
                    f"{name}: no room for {ranks} ranks of {bundle} ({self.settings.placement}) after "
                    f"{self.settings.deadlines.build:g} s; the cluster has {_resources()}"
                )
            actors += [self._actor(group, rank, ranks) for rank in range(ranks)]
            facts = _join(actors, pool_parallel(self.settings), deadline)
        except (RayError, GetTimeoutError) as error:
            _destroy(actors, group)
            raise ClusterUnavailable(f"{name}: its ranks did not start: {cause_of(error)}") from error
        except BaseException:
            _destroy(actors, group)
            raise
        return RayGang(name, actors, group, facts=facts, deadlines=self.settings.deadlines)

    def _bundle(self) -> dict[str, float]:
        wants_gpu = self.settings.device == "cuda" or (self.settings.device == "auto" and has_gpus())
        return {"CPU": float(self.settings.cpus_per_rank), **({"GPU": 1.0} if wants_gpu else {})}

    def _actor(self, group: PlacementGroup, rank: int, ranks: int) -> Any:
        bundle = self._bundle()
        options = {
            "num_cpus": bundle["CPU"],
            "num_gpus": bundle.get("GPU", 0.0),
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": THREADS,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        }
        device = "cuda" if "GPU" in bundle else "cpu"
        actor = ray.remote(self.rank_class).options(**options)
        return actor.remote(rank, ranks, device=device, threads=self.settings.threads)


class RayGang:
    """Ranks that have joined. See imax_dist.jobs.task.Gang."""

    def __init__(
        self,
        name: str,
        actors: list[Any],
        group: PlacementGroup,
        *,
        facts: list[dict[str, Any]],
        deadlines: Deadlines,
    ) -> None:
        self.name = name
        self.ranks = len(actors)
        self._actors = actors
        self._group = group
        self._facts = facts
        self._deadlines = deadlines
        self._tasks: dict[Any, tuple[int, Task]] = {}
        self._outcomes: dict[str, dict[int, Outcome]] = {}
        self._failed_at: float | None = None
        self._losses: list[Lost] = []
        self._seen = [0] * self.ranks
        self._polled_at = time.monotonic()
        self._polls = {self._ask(rank): (rank, time.monotonic()) for rank in range(self.ranks)}

    def start(self, tasks: Sequence[Task]) -> None:
        whole = tasks[0].work != "proof"
        shares = [(rank, tasks[0]) for rank in range(self.ranks)] if whole else list(enumerate(tasks))
        self._failed_at = None
        self._losses = []
        self._outcomes = {task.job_id: {} for task in tasks}
        self._tasks = {self._actors[rank].run.remote(task): (rank, task) for rank, task in shares}

    def poll(self) -> Report:
        self._excuse_absence()
        events, lost = self._news()
        self._losses += [lost] if lost else []
        done = _ready(self._tasks)
        for reference in done:
            self._take_in(reference)
        ended = self._ended()
        overdue = self._overdue_after_failure()
        if overdue:
            ended |= self._abandon()
            self._losses.append(Lost("crashed", f"{self.name}: a rank failed and another did not end"))
        said_why = any(loss.kind != "crashed" for loss in self._losses)
        if self._losses and (said_why or overdue or not self._tasks):
            return Report(events, ended, most_telling(self._losses))
        if done and not self._tasks:
            events += self._last_words()
        return Report(events, ended)

    def _excuse_absence(self) -> None:
        """If nobody polled for long (the driver was stopped), that is no rank's silence."""
        now = time.monotonic()
        away, self._polled_at = now - self._polled_at, now
        if away > POLL_S:
            self._polls = {
                reference: (rank, asked + away) for reference, (rank, asked) in self._polls.items()
            }

    def _take_in(self, reference: Any) -> None:
        """One rank's end of a task. A crash may be the echo of another rank's death: poll waits for that."""
        rank, task = self._tasks.pop(reference)
        outcome = outcome_of(reference, rank)
        self._outcomes[task.job_id][rank] = outcome
        if isinstance(outcome, Lost):
            self._losses.append(outcome)
        if not isinstance(outcome, Finished):
            self._failed_at = self._failed_at or time.monotonic()

    def stop(self, job_id: str) -> None:
        for rank, task in self._tasks.values():
            if task.job_id == job_id:
                self._actors[rank].stop.remote(job_id)

    def draining(self) -> bool:
        leaving = draining_nodes()
        return any(fact["node"] in leaving for fact in self._facts)

    def destroy(self) -> None:
        _destroy(self._actors, self._group)

    def facts(self) -> dict[str, Any]:
        return {
            "pids": tuple(fact["pid"] for fact in self._facts),
            "nodes": tuple(fact["node"] for fact in self._facts),
            "hosts": tuple(sorted({fact["host"] for fact in self._facts})),
        }

    def _ask(self, rank: int) -> Any:
        return self._actors[rank].events.remote(self._seen[rank], POLL_S)

    def _news(self) -> tuple[list[InJob], Lost | None]:
        """Answers to the long polls, and a loss if a rank is dead or does not answer."""
        events: list[InJob] = []
        for reference in _ready(self._polls):
            rank, _asked = self._polls.pop(reference)
            try:
                news = ray.get(reference)
            except RayError as error:
                return events, loss_of(error, rank)
            self._seen[rank] += len(news)
            events += news
            self._polls[self._ask(rank)] = (rank, time.monotonic())
        limit = self._deadlines.heartbeat + POLL_S
        for rank, asked in self._polls.values():
            if time.monotonic() - asked > limit:
                return events, Lost("hung", f"rank {rank} has not answered for {limit:g} s")
        return events, None

    def _last_words(self) -> list[InJob]:
        """Events of a task that has ended, which its last poll may not have brought."""
        events: list[InJob] = []
        for rank, actor in enumerate(self._actors):
            try:
                news = ray.get(actor.events.remote(self._seen[rank], 0.0), timeout=POLL_S)
            except RayError:
                continue  # the next poll tells that the rank is gone
            self._seen[rank] += len(news)
            events += news
        return events

    def _ended(self) -> dict[str, Outcome]:
        """Tasks all of whose ranks have ended, each by what says most about it."""
        pending = {task.job_id for _, task in self._tasks.values()}
        over = [job for job in self._outcomes if job not in pending]
        return {job: _said(self._outcomes.pop(job)) for job in over}

    def _overdue_after_failure(self) -> bool:
        """One rank of a poster has failed and the others still wait for it."""
        broken = [job for job, by_rank in self._outcomes.items() if by_rank]
        if not broken or self._failed_at is None:
            return False
        return time.monotonic() - self._failed_at > self._deadlines.grace

    def _abandon(self) -> dict[str, Outcome]:
        """What the ranks that did end said about tasks that others will not end."""
        said = {job: _said(by_rank) for job, by_rank in self._outcomes.items() if by_rank}
        return {job: outcome for job, outcome in said.items() if not isinstance(outcome, Finished)}


def pool_parallel(settings: PoolSettings) -> ParallelSettings:
    """The pool's parallel settings, with its Ulysses degree where they name none of their own.

    Raises BadConfig or MissingInput.
    """
    found = load_parallel(settings.parallel)
    if settings.ulysses is not None and found.ulysses is None and found.ring is None:
        return replace(found, ulysses=settings.ulysses)
    return found


def _join(actors: list[Any], parallel: ParallelSettings, deadline: float) -> list[dict[str, Any]]:
    places = ray.get([actor.place.remote() for actor in actors], timeout=_left(deadline))
    host = places[0]["address"]
    port = ray.get(actors[0].open_store.remote(host), timeout=_left(deadline))
    joined = ray.get([a.join.remote(host, port, parallel) for a in actors], timeout=_left(deadline))
    return [{**place, **facts} for place, facts in zip(places, joined, strict=True)]


def _said(by_rank: dict[int, Outcome]) -> Outcome:
    return most_telling([by_rank[rank] for rank in sorted(by_rank)])


def _require_ray(name: str) -> None:
    """Raise ClusterUnavailable if the batch has ended while this gang was being built in the background."""
    if not ray.is_initialized():
        raise ClusterUnavailable(f"{name}: Ray has ended")


def _ready(references: dict[Any, Any]) -> list[Any]:
    if not references:
        return []
    ready, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
    return list(ready)


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _destroy(actors: list[Any], group: PlacementGroup) -> None:
    """``ray.kill`` does not reach a stopped process; taking its placement group away does.

    Once Ray has ended there is nothing to destroy, and any call to it would start another Ray.
    """
    if not ray.is_initialized():
        return
    for actor in actors:
        ray.kill(actor, no_restart=True)
    remove_placement_group(group)


def _resources() -> str:
    total = ray.cluster_resources()
    return ", ".join(f"{name} {total[name]:g}" for name in ("CPU", "GPU") if name in total) or "nothing"
