"""What clients ask for on its way into the store: all that arrives at one time in one transaction."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from imax_dist.errors import CannotWrite
from imax_dist.jobs.job import Job
from imax_dist.jobs.store import Queue, Row, Submission
from imax_dist.jobs.store.queue import retried
from imax_dist.service.access import Client
from imax_dist.service.estimates import Estimates
from imax_dist.service.refusals import Refused
from imax_dist.service.settings import ServiceSettings

WAITING = ("queued", "running", "proofed")
UNKNOWN_S = 60.0
"""Taken for the time of a poster where none was made yet and the planner has no answer."""


class Submitted(NamedTuple):
    """What became of a submission."""

    row: Row
    new: bool
    ahead: int | None
    """Queued jobs that are taken before it, where it is new and that is known."""


@dataclass(frozen=True)
class Arrival:
    """What one request asks for, until it is written."""

    submissions: Sequence[Submission]
    client: Client
    answer: asyncio.Future[list[Submitted]]


@dataclass
class Arrivals:
    """Written one batch after the other by one thread, within the clients' quotas."""

    queue: Queue
    settings: ServiceSettings
    estimates: Estimates
    gangs: Callable[[], int]
    writer: ThreadPoolExecutor
    _arrived: list[Arrival] = field(default_factory=list)
    _writing: asyncio.Task[None] | None = None

    async def submit(self, submissions: Sequence[Submission], client: Client) -> list[Submitted]:
        """What became of each, in order. Raises Refused (429) over the client's quota."""
        arrival = Arrival(submissions, client, asyncio.get_running_loop().create_future())
        self._arrived.append(arrival)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_arrived())
        return await arrival.answer

    def retry(self, ids: Sequence[str], client: Client) -> list[str]:
        """Queue failed and cancelled jobs again; the ids of those that were. Raises Refused (429).

        For the writer's thread. Whoever operates retries the jobs of others outside their quotas.
        """
        found = [row for row in map(self.queue.find, ids) if row is not None and row.owner == client.name]
        again = [row for row in found if retried(row.state) is not None]
        waiting = self.queue.counts_of([client.name], WAITING)[client.name]
        most = client.limit("waiting", self.settings)
        if again and waiting + len(again) > most:
            raise self._queue_full(waiting, waiting + len(again) - most, most, like=again[0].job)
        return self.queue.retry(ids)

    async def _write_arrived(self) -> None:
        """As long as some arrive; by itself, since a client that did it would wait for all others."""
        try:
            while self._arrived:
                await self._answer_arrived()
        finally:
            self._writing = None

    async def _answer_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self.writer, self._write, arrived)
        except Exception as error:
            answers = [error] * len(arrived)
        for arrival, found in zip(arrived, answers, strict=True):
            if arrival.answer.cancelled():
                continue
            if isinstance(found, Exception):
                arrival.answer.set_exception(found)
            else:
                arrival.answer.set_result(found)

    def _write(self, arrived: Sequence[Arrival]) -> list[list[Submitted] | Exception]:
        """One transaction for all; where that fails, one each, so that each hears its own fault."""
        refused = self._over_quota(arrived)
        taken = [each for each in arrived if id(each) not in refused]
        answers: dict[int, list[Submitted] | Exception] = {**refused}
        try:
            made = iter(self._submit([one for each in taken for one in each.submissions]))
            answers |= {id(each): [next(made) for _ in each.submissions] for each in taken}
        except Exception as error:
            answers |= {id(each): error if len(taken) == 1 else self._write_one(each) for each in taken}
        return [answers[id(each)] for each in arrived]

    def _write_one(self, arrival: Arrival) -> list[Submitted] | Exception:
        try:
            return self._submit(arrival.submissions)
        except Exception as error:
            return error

    def _submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        rows = self.queue.submit_all(submissions)
        ahead = self._ahead([row for row, new in rows if new])
        return [Submitted(row, new, ahead.get(row.id)) for row, new in rows]

    def _ahead(self, new: Sequence[Row]) -> dict[str, int]:
        """How many are taken before each, by its id: those of one priority stand one behind the other.

        Empty where the store is away by now: the rows are written.
        """
        ahead: dict[str, int] = {}
        following: dict[int, int] = {}
        with suppress(CannotWrite):
            for row in new:
                if row.id not in ahead:  # a key may come twice
                    first = following.get(row.priority)
                    ahead[row.id] = self.queue.ahead(row) if first is None else first
                    following[row.priority] = ahead[row.id] + 1
            return ahead
        return {}

    def _over_quota(self, arrived: Sequence[Arrival]) -> dict[int, Refused]:
        """Who asks for more than may wait, those before in this writing counted as well."""
        waiting = self.queue.counts_of(sorted({each.client.name for each in arrived}), WAITING)
        refused = {}
        for each in arrived:
            name, most = each.client.name, each.client.limit("waiting", self.settings)
            more = len(each.submissions)
            if waiting[name] + more <= most or self._all_known(each.submissions):
                waiting[name] += more
            else:
                over, like = waiting[name] + more - most, each.submissions[0].job
                refused[id(each)] = self._queue_full(waiting[name], over, most, like=like)
        return refused

    def _queue_full(self, waiting: int, over: int, most: int, *, like: Job) -> Refused:
        typical = self.estimates.typical() or self.estimates.guess(like.request) or UNKNOWN_S
        wait = max(1, math.ceil(typical * over / max(1, self.gangs())))
        text = f"{waiting} of your jobs are queued or running, and {most} are allowed"
        text = f"{text}; try again in about {wait} s"
        return Refused(429, text, code="queue_full", headers={"Retry-After": str(wait)})

    def _all_known(self, submissions: Sequence[Submission]) -> bool:
        """Whether nothing new is asked for: a client asks again after an answer that was lost."""
        return all(each.key and self.queue.by_key(each.owner, each.key) is not None for each in submissions)
