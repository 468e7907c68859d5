"""What is not to be kept goes every hour, and nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from http_client import Client
from served import served, wait_until
from sqlalchemy import text

from imax_dist.jobs import retention
from imax_dist.jobs.job import Job, JobFolder
from imax_dist.jobs.retention import Cleared
from imax_dist.jobs.settings import Keep
from imax_dist.jobs.state import Done, Queued
from imax_dist.jobs.store import Store
from imax_dist.pipeline.request import Request
from imax_dist.service import chores, sweeper
from imax_dist.service.log import Log
from imax_dist.service.sweeper import Sweeper

JOBS = [Job(f"old-{i}", Request("x"), position=i, fingerprint="fp") for i in range(3)]
KEEP = Keep(posters="1d")


def filled(store: Store, out: Path) -> None:
    """Posters of a year ago; the first one's folder holds a file of somebody else."""
    store.add((job, Done("ab", 1, 1.0, 1)) for job in JOBS)
    for job in JOBS:
        folder = JobFolder.of(out, job.id)
        folder.open(job)
        folder.poster.write_bytes(b"pixels")
    (out / "old-0" / "notes.txt").write_text("mine")
    with store.transaction() as connection:
        connection.execute(text("UPDATE jobs SET changed = changed - 31536000"))


def test_old_posters_go_and_what_cannot_is_logged(tmp_path: Path) -> None:
    with served(tmp_path) as here:
        filled(here.store, tmp_path)
        asyncio.run(Sweeper(here.service, here.store, KEEP, Log(here.log)).sweep())
        assert set(here.store.states()) == {"old-0"}
        assert not (tmp_path / "old-1").exists()
        lines = [json.loads(line) for line in here.log.getvalue().splitlines()]
        assert any("old-0 holds files of other programs" in line.get("text", "") for line in lines)


def test_a_job_is_taken_while_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removing, taken = threading.Event(), threading.Event()

    def slow(store: Store, out: Path, keep: Keep) -> Cleared:
        removing.set()
        assert taken.wait(30), "nobody was answered"
        return retention.clear(store, out, keep)

    monkeypatch.setattr(sweeper, "clear", slow)
    with served(tmp_path) as here:  # it sweeps as it starts
        assert removing.wait(30)
        job = {"prompt": "a red sun", "size": "128x128"}
        assert Client(here.base)("POST", "/v1/images/jobs", job).status == 202
        taken.set()


def test_an_error_of_ours_in_the_sweep_is_told_at_once_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> Cleared:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(chores, "FIRST_PAUSE_S", 0.3)
    monkeypatch.setattr(sweeper, "clear", wrong)
    with served(tmp_path) as here:  # it sweeps as it starts
        ask = here.client()
        told = wait_until(lambda: ask("GET", "/healthz").json["failing"].get("sweeper"))
        assert told.startswith("ZeroDivisionError, ")
        assert "by nothing" not in told
        lines = [json.loads(line) for line in here.log.getvalue().splitlines()]
        (line, *_) = [line for line in lines if line["event"] == "chore.failed"]
        assert (line["level"], "in wrong" in line["traceback"]) == ("error", True)
        assert b'imax_chore_failures_total{chore="sweeper"} ' in ask("GET", "/metrics").body
        assert ask("GET", "/healthz").status == 200
        monkeypatch.undo()
        wait_until(lambda: not ask("GET", "/healthz").json["failing"])


def test_a_job_that_was_tried_again_meanwhile_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "batch.sqlite")
    filled(store, tmp_path)
    rows = store.over_since(86400.0, states=("done",))
    monkeypatch.setattr(store, "over_since", lambda *_, **__: rows)
    store.move("old-1", Queued())
    assert retention.prune(store, tmp_path, KEEP).jobs == 1
    assert (tmp_path / "old-1" / "poster.png").read_bytes() == b"pixels"
    assert set(store.states()) == {"old-0", "old-1"}
