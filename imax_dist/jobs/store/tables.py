"""The tables of a store, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import REAL, BigInteger, Column, Double, Identity, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

VERSION = 5
"""Of the tables; see migrations.py for how older ones are brought to it."""

metadata = MetaData()
Whole = BigInteger().with_variant(Integer, "sqlite")
Moment: TypeEngine[float] = Double().with_variant(REAL, "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("position", Whole, nullable=False),
    Column("priority", Whole, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("stage", Text, nullable=False, server_default=""),
    Column("step", Whole, nullable=False, server_default="0"),
    Column("steps", Whole, nullable=False, server_default="0"),
    Column("cancel", Whole, nullable=False, server_default="0"),
    Column("number", Whole, nullable=False, server_default="0"),
    Column("created", Moment, nullable=False, server_default="0"),
    Column("revision", Whole, nullable=False, server_default="0"),
    Column("driver", Whole),
    Column("owner", Text, nullable=False, server_default=""),
    Column("key", Text),
    Column("webhook", Text, nullable=False, server_default=""),
    Column("approval", Whole),
)
"""``number`` is the order of submission, ``revision`` rises with every change of a job's state, ``driver``
has the job while it is running, ``key`` is the client's own name of a submission, unique for an ``owner``,
``approval`` whether it was submitted to show its proof first (empty for jobs of before version 5)."""

Index("jobs_by_state", jobs.c.state, jobs.c.priority.desc(), jobs.c.position, jobs.c.id)
Index("jobs_by_order", jobs.c.priority.desc(), jobs.c.position, jobs.c.id)
Index("jobs_by_number", jobs.c.number)
Index("jobs_by_state_and_number", jobs.c.state, jobs.c.number)
Index("jobs_by_revision", jobs.c.revision)
Index("jobs_by_key", jobs.c.owner, jobs.c.key, unique=True)
Index("jobs_by_owner", jobs.c.owner, jobs.c.state, jobs.c.number)
Index(
    "jobs_to_cancel",
    jobs.c.id,
    sqlite_where=text("cancel = 1"),
    postgresql_where=text("cancel = 1"),
)

meta = Table(
    "meta",
    metadata,
    Column("version", Whole, nullable=False),
    Column("revision", Whole, nullable=False),
    Column("number", Whole, nullable=False),
)
"""One row: the version of the tables, the last revision (SQLite only), the last job's number."""

drivers = Table(
    "drivers",
    metadata,
    Column("number", Whole, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("holder", Text, nullable=False, server_default=""),
    Column("since", Moment, nullable=False),
    Column("beats", Whole, nullable=False, server_default="0"),
    Column("beat_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)
"""Drivers that work now. One whose row is gone has been replaced and writes no more."""

events = Table(
    "events",
    metadata,
    Column("number", Whole, Identity(), primary_key=True),
    Column("job", Text, nullable=False),
    Column("moment", Moment, nullable=False),
    Column("event", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""Every change of a job's state, written in the transaction that made it."""
Index("events_by_job", events.c.job, events.c.number)
Index("events_by_moment", events.c.moment)

tokens = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("limits", Text, nullable=False, server_default="{}"),
    Column("created", Moment, nullable=False),
    Column("revoked", Moment),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("number", Whole, Identity(), primary_key=True),
    Column("job", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("attempts", Whole, nullable=False, server_default="0"),
    Column("due", Moment),
    Column("error", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
"""Calls to be made, written with the change of state they tell of; ``due`` is empty once made or given up."""
Index("webhooks_by_due", webhooks.c.due)

uploads = Table(
    "uploads",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("bytes", Whole, nullable=False),
)
"""Pictures that clients sent and that are kept: whose, and how large."""
Index("uploads_by_digest", uploads.c.digest)
