"""Who is in which state: jobs, their drivers, tokens and webhooks, in SQLite or PostgreSQL.

``open_store(place)`` opens a file (``posters/batch.sqlite``) or a database (``postgresql://...``). Looking is
reader.py, what people and services ask for queue.py, clients' names of it keys.py, what a driver does
store.py; tokens.py, webhooks.py and quota.py are a service's.
"""

from __future__ import annotations

from imax_dist.jobs.store.keys import KeyConflict, Lot, Submission
from imax_dist.jobs.store.queue import Queue
from imax_dist.jobs.store.quota import UploadQuota
from imax_dist.jobs.store.reader import JobEventRow, Page, Reader
from imax_dist.jobs.store.row import Row
from imax_dist.jobs.store.store import Store, free, open_store
from imax_dist.jobs.store.tokens import Token, Tokens
from imax_dist.jobs.store.webhooks import Delivery, Webhooks

__all__ = [
    "Delivery",
    "JobEventRow",
    "KeyConflict",
    "Lot",
    "Page",
    "Queue",
    "Reader",
    "Row",
    "Store",
    "Submission",
    "Token",
    "Tokens",
    "UploadQuota",
    "Webhooks",
    "free",
    "open_store",
]
