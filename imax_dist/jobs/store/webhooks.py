"""Calls that tell of a job's end, kept until they are made; several services may make them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, func, select, update

from imax_dist.jobs.store.database import Database
from imax_dist.jobs.store.tables import jobs, webhooks


class Delivery(NamedTuple):
    """A call to be made: ``body`` is the JSON of the event, as in ``Reader.events``."""

    number: int
    job: str
    url: str
    body: str
    attempts: int
    """Times it was tried before."""


class Webhooks:
    """The calls of a store, put there by the changes of state they tell of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, most: int = 10, *, hold_s: float = 60.0) -> list[Delivery]:
        """Calls that are due, for ``hold_s`` this caller's alone; then they are due again."""
        columns = (webhooks.c.number, webhooks.c.job, webhooks.c.url, webhooks.c.body, webhooks.c.attempts)
        with self._database.writing() as connection:
            now = self._database.now(connection)
            due = select(*columns).where(webhooks.c.due <= now).order_by(webhooks.c.due).limit(most)
            found = connection.execute(due.with_for_update(skip_locked=True)).all()
            numbers = [row.number for row in found]
            held = update(webhooks).where(webhooks.c.number.in_(numbers))
            if numbers:
                connection.execute(held.values(due=now + hold_s, attempts=webhooks.c.attempts + 1))
        return [Delivery(*row) for row in found]

    def made(self, number: int) -> None:
        """The other side has taken it."""
        self._set_due(number, None, "")

    def failed(self, number: int, error: str, *, again_in_s: float | None) -> None:
        """Not taken; due again in some seconds, or given up (None)."""
        self._set_due(number, again_in_s, error)

    def waiting(self) -> int:
        """Calls not made and not given up."""
        query = select(func.count()).select_from(webhooks).where(webhooks.c.due.is_not(None))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def forget(self, seconds: float) -> int:
        """Take out what was made longer ago than that, or given up for a job that is gone; how many.

        A URL is often a secret as well. What was given up for a job that is there goes with it.
        """
        gone = webhooks.c.job.not_in(select(jobs.c.id))
        with self._database.writing() as connection:
            old = webhooks.c.due.is_(None) & (webhooks.c.created < self._database.now(connection) - seconds)
            this = delete(webhooks).where(old & ((webhooks.c.error == "") | gone))
            return int(connection.execute(this).rowcount)

    def _set_due(self, number: int, again_in_s: float | None, error: str) -> None:
        with self._database.writing() as connection:
            due = None if again_in_s is None else self._database.now(connection) + again_in_s
            this = update(webhooks).where(webhooks.c.number == number)
            connection.execute(this.values(due=due, error=error))
