"""One queue for several drivers and services: the same promises in a file and in PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import pytest
from postgres import PostgresServer
from sqlalchemy import make_url, text

from imax_dist.errors import BadConfig, BadManifest, BadValue, FolderBusy, StoreUnavailable
from imax_dist.jobs.board import Board
from imax_dist.jobs.driver import StoreListener, one_of_many
from imax_dist.jobs.job import Job
from imax_dist.jobs.lease import this_holder
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.state import Cancelled, Done, Failed, Proofed, Queued, Running
from imax_dist.jobs.store import KeyConflict, Store, Submission, Token, Tokens, Webhooks, open_store
from imax_dist.jobs.store.files import store_path
from imax_dist.jobs.store.postgres import connect_arguments
from imax_dist.pipeline.request import Request

Open: TypeAlias = Callable[[], Store]
BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
SERVER = [pytest.param("postgresql", marks=pytest.mark.slow)]
JOBS = [Job(f"job-{i}", Request("x"), position=i, fingerprint="fp") for i in range(6)]


@pytest.fixture(params=BOTH)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_it(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store again and again, as other processes do."""
    place: str | Path = store_path(tmp_path)
    if kind == "postgresql":
        place = request.getfixturevalue("postgres").new_database()
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(open_store(place))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def filled(open_it: Open, count: int = len(JOBS)) -> Store:
    store = open_it()
    store.add((job, Queued()) for job in JOBS[:count])
    return store


def drivers(open_it: Open, count: int) -> list[Store]:
    stores = [open_it() for _ in range(count)]
    for index, store in enumerate(stores):
        store.join(f"driver {index}")
    return stores


def test_a_submission_waits_behind_the_manifest_and_in_front_of_later_ones(open_it: Open) -> None:
    store = filled(open_it)
    first, new = store.submit(Submission(Job("first", Request("x"))))
    urgent, _ = store.submit(Submission(Job("urgent", Request("x"), priority=1)))
    last, _ = store.submit(Submission(Job("last", Request("x"))))
    assert new
    assert [store.ahead(row) for row in (first, urgent, last)] == [7, 0, 8]
    assert [row.id for row in store.rows()] == ["urgent", *(job.id for job in JOBS), "first", "last"]


def test_the_same_key_and_request_is_the_same_job(open_it: Open) -> None:
    store = open_it()
    row, new = store.submit(Submission(Job("a", Request("x"), fingerprint="1"), owner="me", key="k"))
    again = store.submit(Submission(Job("b", Request("x"), fingerprint="1"), owner="me", key="k"))
    assert (new, again) == (True, (row, False))
    assert store.by_key("me", "k") == row
    with pytest.raises(KeyConflict, match="'k' was used for another request"):
        store.submit(Submission(Job("c", Request("y"), fingerprint="2"), owner="me", key="k"))
    assert store.submit(Submission(Job("d", Request("y"), fingerprint="2"), owner="you", key="k"))[1]
    assert [row.id for row in store.rows()] == ["a", "d"]


def test_a_batch_of_submissions_is_taken_whole_or_not_at_all(open_it: Open) -> None:
    store = filled(open_it, 1)
    new = [Submission(Job(name, Request("x"), fingerprint=name), key=name) for name in ("a", "b")]
    with pytest.raises(BadValue, match="'job-0' is taken"):
        store.submit_all([*new, Submission(JOBS[0])])
    assert store.counts() == {"queued": 1}
    assert [new for _, new in store.submit_all([*new, new[0]])] == [True, True, False]
    assert store.counts() == {"queued": 3}


def test_of_many_that_use_one_key_at_once_one_makes_the_job(open_it: Open) -> None:
    def submit(index: int) -> None:
        job = Job(f"id-{index}", Request("x"), fingerprint="same")
        found.append(open_it().submit(Submission(job, key="k")))

    found: list[tuple[object, bool]] = []
    in_threads([lambda index=index: submit(index) for index in range(6)])  # type: ignore[misc]
    assert sorted(new for _, new in found) == [False] * 5 + [True]
    assert len({row for row, _ in found}) == 1


def test_lists_go_from_the_newest_by_state_and_owner(open_it: Open) -> None:
    store = open_it()
    store.submit_all([Submission(job, owner="me" if job.position % 2 else "") for job in JOBS])
    store.cancel(["job-4"])
    page = store.page(limit=4)
    assert [row.id for row in page.rows] == ["job-5", "job-4", "job-3", "job-2"]
    rest = store.page(limit=4, after=page.next)
    assert ([row.id for row in rest.rows], rest.next) == (["job-1", "job-0"], None)
    assert [row.id for row in store.page(states=["cancelled"]).rows] == ["job-4"]
    assert [row.id for row in store.page(owner="me", limit=2).rows] == ["job-5", "job-3"]
    assert (store.counts(), store.counts(owner="me")) == ({"queued": 5, "cancelled": 1}, {"queued": 3})
    assert [row.id for row in store.rows(states=["queued"], limit=2)] == ["job-0", "job-1"]
    assert store.known(["job-1", "no"]) == {"job-1"}


def test_every_change_of_state_is_an_event_and_every_end_a_call(open_it: Open) -> None:
    store = open_it()
    store.submit(Submission(JOBS[0], webhook="https://example.com/hook"))
    (driver,) = drivers(open_it, 1)
    driver.claim(["job-0"], "gang-0")
    seen = store.events("job-0")
    driver.move("job-0", Done("ab", 10, 1.5, 1))
    (end,) = store.events("job-0", since=seen[-1].number)
    assert [each.event["event"] for each in seen] == ["job.started"]
    assert (end.event["event"], end.event["gang"]) == ("job.done", "gang-0")
    calls = Webhooks(store.database)
    (call,) = calls.take()
    assert (call.job, call.url, call.attempts) == ("job-0", "https://example.com/hook", 0)
    assert calls.take() == [], "another service has it"
    calls.failed(call.number, "503", again_in_s=0)
    (again,) = calls.take()
    assert again.attempts == 1
    calls.made(call.number)
    assert calls.waiting() == 0


def test_calls_go_a_day_after_they_were_made_and_with_their_job(open_it: Open) -> None:
    store, url = open_it(), "https://example.com/hook?key=secret"
    store.submit_all([Submission(job, webhook=url) for job in JOBS[:4]])
    store.cancel([job.id for job in JOBS[:4]])
    calls = Webhooks(store.database)
    made, given_up, orphan, waiting = calls.take()
    calls.made(made.number)
    for call in (given_up, orphan):
        calls.failed(call.number, "answered 503", again_in_s=None)
    with store.transaction() as connection:
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": orphan.job})

    def left() -> set[str]:
        with store.database.reading() as connection:
            return set(connection.execute(text("SELECT job FROM webhooks")).scalars())

    assert calls.forget(3600.0) == 0
    assert calls.forget(-60.0) == 2, "made, or of a job that is gone"
    assert left() == {given_up.job, waiting.job}
    rows = store.over_since(-60.0, states=("cancelled",))
    assert store.forget([row for row in rows if row.id == given_up.job]) == 1
    assert left() == {waiting.job}


def test_tokens_are_found_by_the_hash_of_their_secret_until_revoked(open_it: Open) -> None:
    tokens = Tokens(open_it().database)
    tokens.add(Token("shop", "h1", "submit", {"jobs": 3}))
    with pytest.raises(BadValue, match="'shop' exists"):
        tokens.add(Token("shop", "h2", "operate", {}))
    found = tokens.find("h1")
    assert found is not None
    assert (found.name, found.limits) == ("shop", {"jobs": 3})
    tokens.revoke("shop")
    assert tokens.find("h1") is None
    assert [token.revoked is None for token in tokens.all()] == [False]
    with pytest.raises(BadValue, match="'nobody' does not exist"):
        tokens.revoke("nobody")


def test_a_command_is_carried_out_while_drivers_work(open_it: Open) -> None:
    store = filled(open_it)
    (driver,) = drivers(open_it, 1)
    driver.claim(["job-0"], "gang-0")
    driver.claim(["job-1"], "gang-1")
    driver.move("job-1", Proofed(1))
    assert store.cancel(["job-0", "job-2"]) == ["job-0", "job-2"]
    assert store.approve(None) == ["job-1"]
    assert store.retry(["job-2"]) == ["job-2"]
    states = store.states()
    assert isinstance(states["job-0"], Running)
    assert (states["job-1"], states["job-2"]) == (Queued(attempts=1, proofed=True), Queued())
    assert driver.cancel_requested() == {"job-0"}
    assert driver.move("job-0", Failed("died", "x", 1)) == Cancelled(1)


def test_a_cancellation_outlives_the_driver_that_was_to_carry_it_out(open_it: Open) -> None:
    store = filled(open_it)
    first, second = drivers(open_it, 2)
    first.claim(["job-0", "job-1"], "gang-0", most=2)
    store.cancel(["job-0"])
    second.dismiss(store.drivers()[0].number)
    assert store.states()["job-0"] == Cancelled(1)
    assert store.states()["job-1"] == Queued(attempts=1, after="the batch was interrupted")


def test_many_drivers_take_every_job_once(open_it: Open) -> None:
    store = open_it()
    ids = [f"poster-{index}" for index in range(40)]
    store.add((Job(name, Request("x"), position=i), Queued()) for i, name in enumerate(ids))
    taken: list[str] = []

    def work(driver: Store) -> None:
        board = Board(driver)
        while not board.over:
            wanted = [job for job, _ in board.waiting()][:4]
            for job in board.claim(wanted, "gang", most=1) if wanted else {}:
                taken.append(job)
                board.move(job, Done("ab", 1, 1.0, 1))
            board.look()

    in_threads([lambda driver=driver: work(driver) for driver in drivers(open_it, 3)])  # type: ignore[misc]
    assert sorted(taken) == sorted(ids)
    assert store.counts() == {"done": 40}


def test_a_paused_driver_does_not_write_over_its_successor(open_it: Open) -> None:
    store = filled(open_it)
    paused, successor = drivers(open_it, 2)
    paused.claim(["job-0"], "gang-0")
    successor.dismiss(store.drivers()[0].number)
    assert successor.claim(["job-0"], "gang-9")["job-0"].before == Queued(
        attempts=1, after="the batch was interrupted"
    )
    for write in (
        lambda: paused.move("job-0", Done("ab", 1, 1.0, 1)),
        lambda: paused.progress("job-0", "native", 1, 2),
        lambda: paused.claim(["job-1"], "gang-0"),
        paused.check,
        paused.beat,
    ):
        with pytest.raises(FolderBusy, match="taken over by another batch"):
            write()
    assert store.find("job-0").state.gang == "gang-9"  # type: ignore[union-attr]
    assert successor.move("job-0", Done("cd", 1, 1.0, 2)) == Done("cd", 1, 1.0, 2)


def test_a_driver_that_leaves_gives_back_what_it_has(open_it: Open) -> None:
    store = filled(open_it)
    (driver,) = drivers(open_it, 1)
    driver.claim(["job-0"], "gang-0")
    driver.leave()
    assert store.drivers() == []
    assert store.states()["job-0"] == Queued(attempts=1, after="the batch was interrupted")


def test_a_job_that_another_driver_has_is_left_alone(open_it: Open) -> None:
    filled(open_it)
    first, second = drivers(open_it, 2)
    first.claim(["job-0"], "gang-0")
    assert second.claim(["job-0"], "gang-1") == {}
    assert isinstance(second.move("job-0", Failed("x", "y", 1)), Running)
    assert isinstance(first.states()["job-0"], Running)


def test_two_that_enlist_one_manifest_leave_each_others_jobs(open_it: Open, tmp_path: Path) -> None:
    """What a driver has put in, taken or finished since another looked stays as it is."""
    late, first = open_it(), open_it()
    seen = {row.id: row.revision for row in late.rows()}
    first.join("first")
    add_jobs(first, JOBS, tmp_path)
    first.claim(["job-0"], "gang-0")
    late.add([(job, Queued()) for job in JOBS], seen=seen)
    assert isinstance(late.states()["job-0"], Running)
    seen = {row.id: row.revision for row in late.rows()}
    first.move("job-0", Done("ab", 1, 1.0, 1))
    late.add([(job, Queued(attempts=7)) for job in JOBS], seen=seen)
    assert late.states()["job-0"] == Done("ab", 1, 1.0, 1)
    assert late.states()["job-1"] == Queued(attempts=7), "nobody had touched it"


def test_changes_are_read_from_where_one_left_off(open_it: Open) -> None:
    store, other = filled(open_it), open_it()
    since, entries = store.changes(0)
    assert [entry.id for entry in entries] == [job.id for job in JOBS]
    assert store.changes(since)[1] == []
    other.cancel(["job-3"])
    after, entries = store.changes(since)
    assert [(entry.id, entry.state) for entry in entries] == [("job-3", Cancelled())]
    other.submit(Submission(Job("new", Request("x"))))
    assert [entry.id for entry in store.changes(after)[1]] == ["new"]


def test_a_board_hears_of_new_cancelled_and_retried_jobs(open_it: Open) -> None:
    store, other = filled(open_it, 2), open_it()
    board = Board(store, open_ended=True)
    other.submit(Submission(Job("new", Request("x"), priority=1)))
    other.cancel(["job-0"])
    assert sorted(board.look()) == ["job-0", "new"]
    assert [job for job, _ in board.waiting()] == ["new", "job-1"]
    other.retry(["job-0"])
    assert board.look() == ["job-0"]
    assert [job for job, _ in board.waiting()] == ["new", "job-0", "job-1"]
    assert (board.counts["queued"], board.over) == (3, False)


@pytest.mark.parametrize("kind", SERVER, indirect=True)
def test_who_is_late_takes_the_next_job_and_does_not_wait(open_it: Open) -> None:
    """SKIP LOCKED: the first driver's transaction is still open."""
    filled(open_it)
    first, second = drivers(open_it, 2)
    with first.transaction() as connection:
        connection.execute(text("SELECT id FROM jobs WHERE id = 'job-0' FOR UPDATE"))
        assert list(second.claim(["job-0", "job-1"], "gang-1")) == ["job-1"]


@pytest.mark.parametrize("kind", SERVER, indirect=True)
def test_no_change_is_missed_that_was_open_while_later_ones_were_seen(open_it: Open) -> None:
    store, slow, quick = filled(open_it), open_it(), open_it()
    since, _ = store.changes(0)
    told: set[str] = set()
    with slow.transaction() as connection:
        connection.execute(
            text("UPDATE jobs SET state = 'queued', revision = :r WHERE id = 'job-1'"),
            {"r": slow.database.revision(connection)},
        )
        quick.cancel(["job-2"])
        since, entries = store.changes(since)
        assert "job-1" not in {entry.id for entry in entries}
        told |= {entry.id for entry in entries}
    _, entries = store.changes(since)
    assert {"job-1", "job-2"} <= told | {entry.id for entry in entries}


@pytest.mark.parametrize("kind", SERVER, indirect=True)
def test_a_driver_is_dismissed_only_between_its_transactions(open_it: Open) -> None:
    store = filled(open_it)
    driver, other = drivers(open_it, 2)
    number = store.drivers()[0].number
    dismissing = threading.Thread(target=lambda: other.dismiss(number))
    with driver.transaction() as connection:
        dismissing.start()
        dismissing.join(0.3)
        assert dismissing.is_alive(), "it waits for the transaction"
        connection.execute(text("UPDATE jobs SET step = 7 WHERE id = 'job-0'"))
    dismissing.join(10)
    assert store.find("job-0").step == 7  # type: ignore[union-attr]
    with pytest.raises(FolderBusy):
        driver.check()


@pytest.mark.parametrize("kind", SERVER, indirect=True)
def test_a_silent_driver_loses_its_jobs_to_one_that_listens(open_it: Open) -> None:
    store = filled(open_it)
    silent = open_it()
    silent.join("silent")
    silent.claim(["job-0"], "gang-0")
    with one_of_many(open_it(), beat_s=0.05, expires_s=0.4):
        deadline = time.monotonic() + 20
        while isinstance(store.states()["job-0"], Running):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [row.alive for row in store.drivers()] == [True]
    with pytest.raises(FolderBusy):
        silent.check()
    assert store.drivers() == []


@pytest.mark.parametrize("kind", SERVER, indirect=True)
def test_a_driver_that_was_killed_leaves_no_row_though_it_held_no_job(open_it: Open) -> None:
    store = filled(open_it)
    program = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as killed:
        open_it().join("killed", json.dumps({**asdict(this_holder()), "pid": killed.pid}))
        open_it().join("elsewhere", json.dumps({**asdict(this_holder()), "host": "another", "boot": "x"}))
        with one_of_many(open_it(), beat_s=60):
            killed.kill()
            os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # ended, and not waited for
        assert [driver.name for driver in store.drivers()] == ["elsewhere"]


@pytest.mark.parametrize("kind", SERVER, indirect=True)
def test_a_database_that_went_away_is_waited_for(open_it: Open, postgres: PostgresServer) -> None:
    """Nothing is lost: the gang's end is written once the database is back."""
    board = Board(filled_driver(open_it), patience_s=60)
    said: list[str] = []
    board.note = said.append
    board.claim(["job-0"], "gang-0", most=1)
    postgres.stop()
    back = threading.Timer(1.5, postgres.start)
    back.start()
    try:
        assert board.look() == []
        assert board.move("job-0", Done("ab", 1, 1.0, 1)) == Done("ab", 1, 1.0, 1)
    finally:
        back.join()
    assert any("trying again for up to 60 s" in text for text in said)
    assert board.look() == []
    assert board.counts["done"] == 1


@pytest.mark.slow
def test_two_drivers_share_a_queue_and_one_that_is_killed_loses_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Real processes; their gangs only wait."""
    url, notes = postgres.new_database(), tmp_path / "notes"
    store = open_store(url)
    ids = [f"poster-{index}" for index in range(100)]
    store.add((Job(name, Request("x", size="64x64"), position=i), Queued()) for i, name in enumerate(ids))
    command = [sys.executable, str(Path(__file__).with_name("one_driver.py")), url, str(tmp_path), str(notes)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        wait_for(lambda: notes.exists() and len({line.split()[1] for line in notes.open()}) == 2)
        processes[0].kill()
        assert processes[1].wait(100) == 0, processes[1].communicate()[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert store.counts() == {"done": len(ids)}
    made = [line.split() for line in notes.read_text().splitlines()]
    assert {job for job, _ in made} == set(ids)
    assert len({pid for _, pid in made}) == 2
    assert len(made) <= len(ids) + 2, "only what the killed one had in its two gangs may be made twice"
    assert store.drivers() == []


@pytest.mark.slow
def test_a_database_that_cannot_be_had_is_one_sentence_without_the_password(postgres: PostgresServer) -> None:
    url = f"postgresql://imax:secret@/nowhere?host={postgres.folder}"
    with pytest.raises(StoreUnavailable, match=r"imax:\*\*\*@/nowhere cannot be used.* does not") as error:
        open_store(url)
    assert "secret" not in str(error.value)
    with pytest.raises(BadConfig, match="names no database"):
        open_store("postgresql://imax@localhost")


@pytest.mark.slow
def test_a_server_that_goes_silent_is_given_up_in_seconds_and_the_url_has_the_last_word(
    postgres: PostgresServer,
) -> None:
    url = postgres.new_database()
    other = f"{url}&keepalives_idle=60&connect_timeout=3&application_name=mine&options=-csearch_path%3Dpublic"
    wanted = {"keepalives_idle": "10", "tcp_user_timeout": "20000", "connect_timeout": "10"}
    theirs = {**wanted, "keepalives_idle": "60", "connect_timeout": "3", "application_name": "mine"}
    for place, expected in ((url, wanted), (other, theirs)):
        with closing(open_store(place)) as store, store.database.reading() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            used = raw.info.get_parameters()
            assert expected.items() <= used.items()
            assert {"keepalives_interval": "5", "keepalives_count": "3"}.items() <= used.items()
            assert "statement_timeout=60s" in used["options"]
            assert ("search_path" in used["options"]) == (place is other)


def test_every_connection_looks_whether_the_server_is_there() -> None:
    found = connect_arguments(make_url("postgresql+psycopg://imax@host/imax?tcp_user_timeout=5000"))
    assert found["keepalives"] == 1
    assert found["keepalives_idle"] + found["keepalives_interval"] * found["keepalives_count"] <= 30
    assert "tcp_user_timeout" not in found


@pytest.mark.slow
def test_tables_of_a_later_program_are_refused(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    store = open_store(url)
    with store.transaction() as connection:
        connection.execute(text("UPDATE meta SET version = 99"))
    store.close()
    with pytest.raises(BadManifest, match="version 99"):
        open_store(url)


def test_a_database_that_was_away_makes_nobody_silent() -> None:
    now = [0.0]
    listener = StoreListener(lambda: now[0], expires_s=20)
    assert listener.silent({1: 5, 2: 7}) == []
    now[0] = 15
    assert listener.silent({1: 5, 2: 8}) == []
    now[0] = 21
    assert listener.silent({1: 5, 2: 9}) == [1]
    listener.forget()
    now[0] = 100
    assert listener.silent({1: 5, 2: 9}) == []
    now[0] = 121
    assert listener.silent({1: 5, 2: 10}) == [1]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def filled_driver(open_it: Open) -> Store:
    filled(open_it)
    return drivers(open_it, 1)[0]


def in_threads(acts: list[Callable[[], object]]) -> None:
    """All at once; the first error is raised."""
    errors: list[BaseException] = []

    def run(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
