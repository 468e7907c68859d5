"""One driver a folder, even where locks lock nothing; those who ask take nothing and write nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from old_store import old_store

from imax_dist.errors import BadValue, FolderBusy, FolderGone
from imax_dist.jobs import lease as leases
from imax_dist.jobs.control import all_rows, cancel
from imax_dist.jobs.driver import drive
from imax_dist.jobs.lease import Holder, driver_of, excludes, hold, lease_path, read_holder, this_holder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.state import Cancelled, Done, Queued
from imax_dist.jobs.store import Reader, Store, Submission
from imax_dist.jobs.store.files import read_store, store_path
from imax_dist.output.atomic import write_json
from imax_dist.pipeline.request import Request

ELSEWHERE = {"host": "other", "boot": "b", "namespace": "n", "pid": 7}
JOB = make_job(Request("a"), name="a")


def other_driver(store: Path, **changes: Any) -> Holder:
    """The record of a driver on another host, whose lock this host does not see."""
    holder = replace(this_holder(), **{**ELSEWHERE, **changes})
    store.parent.mkdir(parents=True, exist_ok=True)
    write_json(lease_path(store), asdict(holder))
    return holder


def beating(path: Path) -> subprocess.Popen[bytes]:
    """Heartbeats of another host, as the file server shows them."""
    code = f"import os, time\nwhile True: os.utime({str(path)!r}); time.sleep(0.1)"
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_folder_is_held_by_one_and_free_when_its_process_ends(tmp_path: Path) -> None:
    store = store_path(tmp_path)
    code = (
        "import time; from pathlib import Path; from imax_dist.jobs.lease import hold\n"
        f"with hold(Path({str(store)!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    driver = driver_of(store)
    assert driver is not None
    assert driver.pid == process.pid
    with pytest.raises(FolderBusy, match=f"being filled by process {process.pid} on "), hold(store):
        pass
    process.kill()
    process.wait(10)
    assert driver_of(store) is None
    began = time.monotonic()
    with hold(store) as lease:
        lease.check()
    assert time.monotonic() - began < 2, "its process is known to be gone: nobody waits"
    assert not lease_path(store).exists()


def test_a_driver_on_another_host_is_respected_without_any_lock(tmp_path: Path) -> None:
    store = store_path(tmp_path)
    other_driver(store)
    process = beating(lease_path(store))
    try:
        with pytest.raises(FolderBusy, match="process 7 on other"), hold(store, expires_s=30):
            pass
    finally:
        process.kill()
        process.wait(10)


def test_a_driver_on_another_host_that_fell_silent_is_replaced_and_fenced(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    with hold(path) as paused:
        late = Store(path, guard=paused.check)
        late.fence()
        late.add([(JOB, Queued())])
        write_json(lease_path(path), asdict(replace(paused.holder, **ELSEWHERE)))  # as the next host sees it
        (path.with_suffix(".lock")).unlink()  # and its lock locks nothing
        with hold(path, expires_s=0.3) as next_one:
            new = Store(path, guard=next_one.check)
            new.fence()
            with pytest.raises(FolderBusy, match="was taken over by"):
                late.move("a", Done("ab", 1, 1.0, 1))
            new.move("a", Done("cd", 1, 1.0, 1))
        assert new.states() == {"a": Done("cd", 1, 1.0, 1)}


def test_the_number_in_the_store_fences_off_without_the_record(tmp_path: Path) -> None:
    first, second = Store(store_path(tmp_path)), Store(store_path(tmp_path))
    first.fence()
    first.add([(JOB, Queued())])
    second.fence()
    with pytest.raises(FolderBusy, match="taken over by another batch"):
        first.move("a", Queued(1))
    assert second.states() == {"a": Queued()}


@pytest.mark.parametrize(
    ("one", "other", "alone"),
    [(None, None, True), (None, "0/2", True), ("1/2", None, True), ("0/2", "0/2", True), ("0/2", "1/3", True),
     ("0/2", "1/2", False)],
)  # fmt: skip
def test_shards_and_whole_batches_exclude_each_other(
    tmp_path: Path, one: str | None, other: str | None, alone: bool
) -> None:
    assert excludes(one, other) == alone
    with hold(store_path(tmp_path, one), one):
        try:
            with hold(store_path(tmp_path, other), other):
                both = True
        except FolderBusy:
            both = False
    assert both != alone
    assert not list(tmp_path.glob("*.lease"))


def test_a_store_elsewhere_still_holds_the_posters_folder(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "disk" / "queue.sqlite"
    with drive(elsewhere, out=out) as (store, check):
        store.add([(JOB, Queued())])
        check()
        with pytest.raises(FolderBusy, match="out is being filled by process"), hold(store_path(out)):
            pass
        with pytest.raises(FolderBusy, match="from a queue in a file"), drive("postgresql://x/y", out=out):
            pass
        assert cancel(elsewhere, ["a"]) == ["a"]
    assert [row.state_name for row in all_rows(str(elsewhere))] == ["cancelled"]
    with hold(store_path(out)):
        pass


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_folder_that_goes_away_ends_the_batch_with_its_own_sentence(tmp_path: Path, how: str) -> None:
    out = tmp_path / "out"
    with hold(store_path(out)) as lease:
        store = Store(store_path(out), guard=lease.check)
        store.add([(JOB, Queued())])
        if how == "removed":
            shutil.rmtree(out)
        else:
            out.rename(tmp_path / "moved")
        if how == "replaced":
            out.mkdir()
        with pytest.raises(FolderGone, match="was moved or removed while its batch ran"):
            store.move("a", Done("ab", 1, 1.0, 1))
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize("record", ["", "[]", '{"pid": "x"}', "{" * 100_000, '{"host": 3}'])
def test_a_torn_record_is_no_driver(tmp_path: Path, record: str) -> None:
    lease_path(store_path(tmp_path)).write_text(record)
    assert driver_of(store_path(tmp_path)) is None
    with hold(store_path(tmp_path), expires_s=0.1):
        pass


def test_a_process_id_that_came_round_again_is_no_driver_for_long(tmp_path: Path) -> None:
    """This very process, which holds nothing."""
    here = this_holder()
    other_driver(store_path(tmp_path), host=here.host, boot=here.boot, namespace=here.namespace, pid=here.pid)
    with hold(store_path(tmp_path), expires_s=0.3) as lease:
        assert read_holder(lease_path(store_path(tmp_path))) == lease.holder


def test_a_driver_of_before_a_restart_is_gone(tmp_path: Path) -> None:
    other_driver(store_path(tmp_path), host=os.uname().nodename, boot="an earlier one")
    assert driver_of(store_path(tmp_path)) is None


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_looking_at_a_closed_store_writes_nothing(tmp_path: Path) -> None:
    store = Store(store_path(tmp_path))
    store.add([(JOB, Queued())])
    store.close()
    before = contents(tmp_path)
    assert [row.job for row in all_rows(tmp_path)] == [JOB]
    assert contents(tmp_path) == before


def test_looking_at_a_store_in_use_sees_what_was_committed(tmp_path: Path) -> None:
    with hold(store_path(tmp_path)) as lease:
        store = Store(store_path(tmp_path), guard=lease.check)
        store.add([(JOB, Queued())])
        store.move("a", Done("ab", 1, 1.0, 1))
        names = set(contents(tmp_path))
        assert all_rows(tmp_path)[0].state_name == "done"
        assert set(contents(tmp_path)) == names


def test_looking_a_thousand_times_never_makes_a_batch_wait(tmp_path: Path) -> None:
    """80 of 300 starts were told that the folder is busy."""
    Store(store_path(tmp_path)).add([(JOB, Queued())])
    code = (
        "from pathlib import Path; from imax_dist.jobs.control import all_rows\n"
        f"print(flush=True)\nwhile True: all_rows(Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        for _ in range(100):
            with hold(store_path(tmp_path)):
                pass
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("crashed", [False, True])
def test_a_read_only_folder_can_be_looked_at(tmp_path: Path, crashed: bool) -> None:
    """A snapshot, also one of a batch that was running: its log is read, too."""
    out, mounted = tmp_path / "out", tmp_path / "mounted"
    store = Store(store_path(out))
    store.add([(JOB, Queued())])
    if crashed:
        copy = tmp_path / "copy"
        shutil.copytree(out, copy, ignore=lambda _, names: [n for n in names if n.endswith("-shm")])
        out = copy
    store.close()
    mounted.mkdir()
    mount = ["mount", "--bind", "-o", "ro", str(out), str(mounted)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no bind mounts here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(mounted)], check=True)
        assert [row.job for row in all_rows(mounted)] == [JOB]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_store_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "batch.sqlite").symlink_to(tmp_path / "x")
    with pytest.raises(BadValue, match="is a link"):
        read_store(tmp_path / "batch.sqlite", lambda _: None)


def test_without_shared_memory_the_store_keeps_a_journal_and_says_so(tmp_path: Path) -> None:
    """``unix-dotfile`` has none, as network file systems; SQLite answers ``delete``, silently."""
    store = Store(store_path(tmp_path), vfs="unix-dotfile")
    assert not store.shared
    store.add([(JOB, Queued())])
    assert Store(store_path(tmp_path / "b")).shared
    mode = sqlite3.connect(store_path(tmp_path)).execute("PRAGMA journal_mode").fetchone()
    assert mode != ("wal",)


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_is_taken_over(tmp_path: Path, version: int) -> None:
    path = old_store(tmp_path, version, [(JOB, Queued(attempts_without_progress=2), False)])
    assert Reader.of_file(path).states() == {"a": Queued(attempts_without_progress=2)}
    again = Store(path)
    again.fence()
    assert again.states() == {"a": Queued(attempts_without_progress=2)}


def shape(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Columns and indexes of every table."""
    database = sqlite3.connect(path)
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {
        name: sorted(row[1:3] for row in database.execute(f"PRAGMA table_info({name})")) for name in tables
    }
    indexes = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")]
    for name in indexes:
        found[name] = [row[2:] for row in database.execute(f"PRAGMA index_info({name})")]
    database.close()
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_tables_of_an_earlier_version_become_those_of_now(tmp_path: Path, version: int) -> None:
    (tmp_path / "old").mkdir()
    old = old_store(tmp_path / "old", version, [(JOB, Queued(), True)])
    store = Store(old)
    assert store.find("a").number == 1  # type: ignore[union-attr]
    assert store.submit(Submission(make_job(Request("b"), name="b")))[0].number == 2
    store.recover()
    assert store.states() == {"a": Cancelled(), "b": Queued()}, "the command is of before the change"
    store.close()
    Store(tmp_path / "new.sqlite").close()
    assert shape(old) == shape(tmp_path / "new.sqlite")


def test_the_heartbeat_is_the_time_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    with hold(store_path(tmp_path)) as lease:
        first = lease.path.stat().st_mtime_ns
        deadline = time.monotonic() + 5
        while lease.path.stat().st_mtime_ns == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
