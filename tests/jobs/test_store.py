"""The store: states come back as they went in, one batch a folder, commands from outside."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from imax_dist.errors import BadManifest, BadValue, CannotWrite, MissingInput
from imax_dist.jobs.control import all_rows, approve, cancel, damaged, retry
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.lease import hold
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.settings import PoolSettings
from imax_dist.jobs.state import Cancelled, Done, Failed, Proofed, Queued, Running, State
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path, store_paths
from imax_dist.pipeline.request import Request

STATES: list[State] = [
    Queued(5.0, attempts=3, attempts_without_progress=1, hangs=2, ranks=4, proofed=True, after="why"),
    Running("gang-1", 7.0, Queued(attempts=1)),
    Proofed(2),
    Done("ab", 10, 1.5, 2),
    Failed("died", "why", 3, retryable=True),
    Cancelled(1),
]
JOBS = [make_job(Request(f"poster {i}"), name=f"job-{i}", position=i) for i in range(len(STATES))]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(store_path(tmp_path))
    store.add(zip(JOBS, STATES, strict=True))
    return store


def state(store: Store, job_id: str) -> State:
    return store.states()[job_id]


def test_jobs_and_states_come_back_as_they_went_in(store: Store) -> None:
    assert [(row.job, row.state) for row in store.rows()] == list(zip(JOBS, STATES, strict=True))


def test_the_log_is_written_ahead(store: Store) -> None:
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(store_path(tmp_path), isolation_level=None, check_same_thread=False)
    with closing(other):
        other.execute("BEGIN IMMEDIATE")  # one that SQLite does not wait for before it changes journals
        made = threading.Timer(0.3, other.execute, ["COMMIT"])
        made.start()
        assert Store(store_path(tmp_path)).rows() == []
        made.join()


def test_a_job_put_in_again_starts_over(store: Store) -> None:
    store.progress("job-0", "native", 3, 4)
    store.add([(JOBS[0], Queued())])
    row = store.rows()[0]
    assert (row.state, row.step) == (Queued(), 0)


def test_rows_come_by_priority_then_position(store: Store) -> None:
    store.add([(make_job(Request("urgent"), name="urgent", priority=1, position=99), Queued())])
    assert [row.job.id for row in store.rows()][:2] == ["urgent", "job-0"]


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "batch.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(BadManifest, match="not an imax batch database"):
        Store(tmp_path / "batch.sqlite")


def test_a_store_of_another_version_is_refused(store: Store) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(BadManifest, match="version 99"):
        Store(store.path)


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(CannotWrite, match="cannot be used"):
        Store(tmp_path / "folder" / "batch.sqlite")
    (tmp_path / "batch.sqlite").mkdir()
    with pytest.raises(BadValue, match="is a folder, and a queue is a file"):
        Store(tmp_path / "batch.sqlite")


def test_enlisting_again_keeps_what_is_over_and_queues_what_is_worth_it(store: Store, tmp_path: Path) -> None:
    add_jobs(store, JOBS, tmp_path)
    after = [row.state for row in store.rows()]
    assert after[0] == STATES[0]
    assert after[3] == Queued(proofed=True, after="DONE is missing or damaged")
    assert after[4] == Queued(attempts=3, after="died: why")
    assert after[5] == STATES[5]


def test_a_permanent_failure_stays_failed(store: Store, tmp_path: Path) -> None:
    failed = Failed("BadValue", "why", 1)
    store.move("job-0", failed)
    add_jobs(store, JOBS, tmp_path)
    assert state(store, "job-0") == failed


def test_a_changed_request_is_queued_anew(store: Store, tmp_path: Path) -> None:
    changed = make_job(Request("another picture"), name="job-5")
    add_jobs(store, [changed], tmp_path)
    assert state(store, "job-5") == Queued()


def test_a_poster_finished_by_an_earlier_run_is_not_made_again(store: Store, tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path, "job-1")
    folder.open(JOBS[1])
    folder.poster.write_bytes(b"pixels")
    folder.checkpoints.mkdir()
    folder.finish(JOBS[1].fingerprint, {"pixels_sha256": "cd", "seconds": 2.0})
    assert damaged(tmp_path, store.rows()) == {"job-3": "DONE is missing or damaged"}
    add_jobs(store, JOBS, tmp_path)
    assert state(store, "job-1") == Done("cd", 6, 2.0, 2)
    assert not folder.checkpoints.exists()


def test_commands_move_only_what_they_apply_to(store: Store, tmp_path: Path) -> None:
    assert approve(tmp_path, []) == ["job-2"]
    assert retry(tmp_path, []) == ["job-4", "job-5"]
    assert cancel(tmp_path, ["job-0", "job-3"]) == ["job-0"]
    assert state(store, "job-0") == Cancelled(3, proofed=True)
    assert state(store, "job-2") == Queued(attempts=2, proofed=True)
    assert state(store, "job-4") == Queued(attempts=3)


def test_only_the_end_of_a_running_poster_is_left_to_its_batch(store: Store, tmp_path: Path) -> None:
    with hold(store.path):
        assert cancel(tmp_path, ["job-0", "job-1"]) == ["job-0", "job-1"]
        assert state(store, "job-0") == Cancelled(3, proofed=True), "nobody works on it"
        assert store.cancel_requested() == {"job-1"}
        assert state(store, "job-1") == STATES[1]
        assert all_rows(tmp_path)[1].note().endswith("stops after this step")
        assert retry(tmp_path, ["job-0", "job-1", "job-4"]) == ["job-0", "job-4"]
    assert all_rows(tmp_path)[1].state_name == "cancelled", "as the next batch will find it"
    store.move("job-1", Queued())
    assert state(store, "job-1") == Cancelled()
    assert store.cancel_requested() == set()


def test_what_a_killed_batch_left_running_is_shown_as_queued(store: Store, tmp_path: Path) -> None:
    with hold(store.path):
        assert [row.state_name for row in all_rows(tmp_path)][1] == "running"
    row = all_rows(tmp_path)[1]
    assert (row.state_name, row.note()) == ("queued", "the batch was interrupted")
    assert row.attempts == 2


def test_a_command_for_an_unknown_poster_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="has no poster nobody"):
        cancel(tmp_path, ["nobody"])


def test_shards_have_their_own_stores_and_one_status(tmp_path: Path) -> None:
    for index in range(2):
        Store(store_path(tmp_path, f"{index}/2")).add([(JOBS[index], Queued())])
    assert [path.name for path in store_paths(tmp_path)] == ["batch-0-of-2.sqlite", "batch-1-of-2.sqlite"]
    assert [row.job.id for row in all_rows(tmp_path)] == ["job-0", "job-1"]


def test_a_folder_without_a_batch_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="holds no batch"):
        store_paths(tmp_path)


def test_the_shipped_pool_files_load() -> None:
    from imax_dist.config import named_configs
    from imax_dist.jobs.batch import load_pool_settings

    assert {"default", "local", "strangers"} <= set(named_configs("jobs"))
    for name in named_configs("jobs"):
        assert load_pool_settings(name, {}).ranks >= 1
    assert load_pool_settings("default", {}) == PoolSettings(open=("gangs", "ranks"))
    assert load_pool_settings("strangers", {}).limits.models == ("embedded", "flux-dev", "flux-schnell")


def test_a_pool_may_bring_parallel_settings_of_its_own(tmp_path: Path) -> None:
    from imax_dist.jobs.ray_gangs import pool_parallel

    own = tmp_path / "compiled.yaml"
    own.write_text("compile: regional\n", encoding="utf-8")
    assert pool_parallel(PoolSettings(parallel=str(own), ulysses=2)).compile == "regional"
    assert pool_parallel(PoolSettings(parallel=str(own), ulysses=2)).ulysses == 2


def test_a_store_of_version_3_gets_what_a_page_of_one_state_needs(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    Store(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP INDEX jobs_by_state_and_number")
        database.execute("ALTER TABLE jobs DROP COLUMN approval")
        database.execute("DROP TABLE uploads")
        database.execute("PRAGMA user_version=3")
    store = Store(path)
    with store.database.reading() as connection:
        plan = connection.execute(
            text("EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE state = 'queued' ORDER BY number DESC LIMIT 9")
        )
        assert "jobs_by_state_and_number" in str(plan.all())
    store.close()
