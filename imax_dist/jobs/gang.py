"""A gang on Ray: a placement group, one actor a rank, their own meeting point.

Ray restarts nothing here: one rank lost is the gang lost, destroyed whole and rebuilt (pool.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from imax_dist.events import InJob
from imax_dist.jobs.cluster import draining_nodes
from imax_dist.jobs.outcomes import loss_of, most_informative, outcome_of
from imax_dist.jobs.places import Nodes
from imax_dist.jobs.settings import Deadlines
from imax_dist.jobs.task import Finished, Lost, Outcome, Report, Task
from imax_dist.jobs.watch import GangWatch

POLL_S = 1.0
"""How long a rank holds a question for news before it answers that there is none."""


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
        watch: GangWatch,
        nodes: Nodes | None = None,
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
        self._watch = watch
        self._nodes = Nodes() if nodes is None else nodes
        self._moved: set[str] = set()
        self._polled_at = time.monotonic()
        self._polls = {self._start_poll(rank): rank for rank in range(self.ranks)}

    def start(self, tasks: Sequence[Task]) -> None:
        whole = tasks[0].work != "proof"
        shares = [(rank, tasks[0]) for rank in range(self.ranks)] if whole else list(enumerate(tasks))
        self._failed_at = None
        self._losses = []
        self._outcomes = {task.job_id: {} for task in tasks}
        self._watch.begin(shares)
        self._tasks = {self._actors[rank].run.remote(task): (rank, task) for rank, task in shares}

    def poll(self) -> Report:
        self._excuse_absence()
        self._moved.clear()
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
        cause_known = any(loss.kind != "crashed" for loss in self._losses)
        if self._losses and (cause_known or overdue or not self._tasks):
            return Report(events, ended, most_informative(self._losses))
        if done and not self._tasks:
            events += self._last_words()
        return Report(events, ended, moved=frozenset(self._moved))

    def _excuse_absence(self) -> None:
        """If nobody polled for long (the driver was stopped), that is no rank's silence."""
        now = time.monotonic()
        away, self._polled_at = now - self._polled_at, now
        if away > POLL_S:
            self._watch.excuse(away)

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
        announced = {self._facts[rank]["node"] for rank in self._watch.leaving}
        self._nodes.leaves(announced)
        leaving = draining_nodes() | announced
        return any(fact["node"] in leaving for fact in self._facts)

    def destroy(self) -> None:
        destroy_ranks(self._actors, self._group)

    def facts(self) -> dict[str, Any]:
        return {
            "pids": tuple(fact["pid"] for fact in self._facts),
            "nodes": tuple(fact["node"] for fact in self._facts),
            "hosts": tuple(sorted({fact["host"] for fact in self._facts})),
        }

    def _start_poll(self, rank: int) -> Any:
        return self._actors[rank].events.remote(self._seen[rank], POLL_S)

    def _news(self) -> tuple[list[InJob], Lost | None]:
        """Answers to the long polls, and a loss if a rank is dead or the ranks hang."""
        events: list[InJob] = []
        for reference in _ready(self._polls):
            rank = self._polls.pop(reference)
            try:
                news, report = ray.get(reference)
            except RayError as error:
                lost = loss_of(error, rank)
                if lost.kind == "died":
                    self._nodes.lost_on(self._facts[rank]["node"])
                return events, lost
            self._moved |= {job for job in [self._watch.see(report)] if job}
            self._seen[rank] += len(news)
            events += news
            self._polls[self._start_poll(rank)] = rank
        hung = self._watch.lost({rank for rank, _ in self._tasks.values()})
        if hung is not None and self._watch.culprit is not None:
            self._nodes.lost_on(self._facts[self._watch.culprit]["node"])
        return events, hung

    def _last_words(self) -> list[InJob]:
        """Events of a task that has ended, which its last poll may not have brought."""
        events: list[InJob] = []
        for rank, actor in enumerate(self._actors):
            try:
                news, _ = ray.get(actor.events.remote(self._seen[rank], 0.0), timeout=POLL_S)
            except RayError:
                continue  # the next poll tells that the rank is gone
            self._seen[rank] += len(news)
            events += news
        return events

    def _ended(self) -> dict[str, Outcome]:
        """Tasks all of whose ranks have ended, each by what says most about it."""
        pending = {task.job_id for _, task in self._tasks.values()}
        over = [job for job in self._outcomes if job not in pending]
        return {job: _combined(self._outcomes.pop(job)) for job in over}

    def _overdue_after_failure(self) -> bool:
        """One rank of a poster has failed and the others still wait for it."""
        broken = [job for job, by_rank in self._outcomes.items() if by_rank]
        if not broken or self._failed_at is None:
            return False
        return time.monotonic() - self._failed_at > self._deadlines.grace

    def _abandon(self) -> dict[str, Outcome]:
        """What the ranks that did end said about tasks that others will not end."""
        outcomes = {job: _combined(by_rank) for job, by_rank in self._outcomes.items() if by_rank}
        return {job: outcome for job, outcome in outcomes.items() if not isinstance(outcome, Finished)}


def _combined(by_rank: dict[int, Outcome]) -> Outcome:
    return most_informative([by_rank[rank] for rank in sorted(by_rank)])


def _ready(references: dict[Any, Any]) -> list[Any]:
    if not references:
        return []
    ready, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
    return list(ready)


def destroy_ranks(actors: list[Any], group: PlacementGroup) -> None:
    """``ray.kill`` does not reach a stopped process; taking its placement group away does.

    Once Ray has ended there is nothing to destroy, and any call to it would start another Ray.
    """
    if not ray.is_initialized():
        return
    for actor in actors:
        ray.kill(actor, no_restart=True)
    remove_placement_group(group)
