"""A store as an earlier version of the program wrote it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from imax_dist.jobs.job import Job
from imax_dist.jobs.state import State, name_of, to_record
from imax_dist.jobs.store.files import store_path
from imax_dist.settings_mapping import to_mapping

JOBS = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    changed REAL NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, priority DESC, position);
"""
DRIVER = """
CREATE TABLE IF NOT EXISTS driver (number INTEGER NOT NULL);
INSERT INTO driver SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM driver);
"""


def old_store(out: Path, version: int, jobs: Sequence[tuple[Job, State, bool]]) -> Path:
    """``batch.sqlite`` of version 1 or 2 in ``out``; each job with whether it was to be cancelled."""
    path = store_path(out)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(JOBS + (DRIVER if version == 2 else ""))
    for job, state, cancel in jobs:
        detail = json.dumps(to_record(state))
        if version == 1:
            detail = detail.replace("attempts_without_progress", "fruitless")
        database.execute(
            "INSERT INTO jobs (id, position, priority, fingerprint, request, state, detail, changed, cancel) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 1.0, ?)",
            (
                *(job.id, job.position, job.priority, job.fingerprint, json.dumps(to_mapping(job.request))),
                *(name_of(state), detail, cancel),
            ),
        )
    database.execute(f"PRAGMA user_version={version}")
    database.commit()
    database.close()
    return path
