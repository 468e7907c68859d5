"""SQLite where several hosts may write: recognised, made safe or refused with what to do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imax_dist.errors import CannotWrite
from imax_dist.jobs.control import all_rows, cancel
from imax_dist.jobs.job import Job
from imax_dist.jobs.state import Cancelled, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.store import sqlite as sqlite_stores
from imax_dist.jobs.store.file_system import Mount, mount_of, require_locks
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request

MOUNTS = r"""21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:30 / /mnt rw - tmpfs tmpfs rw
40 22 0:40 / /mnt/farm\040one rw,relatime shared:7 - nfs4 server:/farm rw,vers=4.2,local_lock=none
41 22 0:41 / /mnt/old rw - nfs server:/old rw,vers=3,nolock,local_lock=all
42 22 0:42 / /mnt/lustre rw - lustre mds@tcp:/scratch rw,flock,lazystatfs
43 22 0:43 / /mnt/noflock rw - lustre mds@tcp:/scratch rw,lazystatfs
44 22 0:44 / /mnt/bucket rw - fuse.s3fs s3fs rw,user_id=0
45 22 0:45 / /mnt/gluster rw - fuse.glusterfs server:/vol rw
46 22 0:46 / /mnt/disk rw - fuseblk /dev/sdb1 rw
"""
JOB = Job("a", Request("x"), fingerprint="fp")


def mount(path: str) -> Mount:
    found = mount_of(Path(path), MOUNTS)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "kind", "shared"),
    [
        ("/home/me/posters", "ext4", False),
        ("/mnt", "tmpfs", False),
        ("/mnt/farm one/posters", "nfs4", True),
        ("/mnt/farm onerous", "tmpfs", False),
        ("/mnt/lustre", "lustre", True),
        ("/mnt/gluster/a/b", "fuse.glusterfs", True),
        ("/mnt/disk/a", "fuseblk", False),
    ],
)
def test_a_disk_that_others_may_write_to_is_recognised(path: str, kind: str, shared: bool) -> None:
    assert (mount(path).kind, mount(path).shared) == (kind, shared)
    require_locks(Path(path), mount(path))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/mnt/old/posters", r"\(nfs\), mounted with local_lock=all"),
        ("/mnt/noflock", r"\(lustre\), mounted with no flock"),
        ("/mnt/bucket", r"\(fuse.s3fs\), where no host sees another's locks"),
    ],
)
def test_a_disk_without_locks_is_refused_with_what_to_do(path: str, why: str) -> None:
    with pytest.raises(CannotWrite, match=f"{why}.*--store FILE.*--store postgresql://"):
        require_locks(Path(path), mount(path))


def test_this_machines_own_mounts_can_be_read(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert found is not None
    assert str(tmp_path).startswith(found.point)


def test_a_store_on_a_shared_disk_keeps_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that a local run had left with a log."""
    first = Store(store_path(tmp_path))
    first.add([(JOB, Queued())])
    first.close()
    monkeypatch.setattr(sqlite_stores, "mount_of", lambda _: Mount("/mnt", "nfs4", "s:/", frozenset(["rw"])))
    store = Store(store_path(tmp_path))
    assert not store.shared
    assert store.states() == {"a": Queued()}
    store.cancel(["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["batch.sqlite"]


def test_a_log_that_is_in_use_elsewhere_is_no_shared_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(store_path(tmp_path))
    first.add([(JOB, Queued())])
    monkeypatch.setattr(sqlite_stores, "mount_of", lambda _: Mount("/mnt", "nfs4", "s:/", frozenset(["rw"])))
    monkeypatch.setattr(sqlite_stores, "BUSY_S", 0.2)
    with pytest.raises(CannotWrite, match="cannot be used: database is locked"):
        Store(store_path(tmp_path))
    assert first.states() == {"a": Queued()}


@pytest.fixture
def without_shared_memory(tmp_path: Path) -> Iterator[Path]:
    """FUSE with direct_io: its files cannot be mapped for several writers, as SQLite's log needs it."""
    source, point = tmp_path / "source", tmp_path / "mounted"
    source.mkdir()
    point.mkdir()
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed (Debian: apt-get install bindfs)")
    made = subprocess.run(
        ["bindfs", "-o", "direct_io", str(source), str(point)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no FUSE here: {made.stderr.decode().strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def test_a_disk_without_shared_memory_holds_a_batch(without_shared_memory: Path) -> None:
    """SQLite grants a write-ahead log there, and the first write fails with an I/O error."""
    store, other = (Store(store_path(without_shared_memory)) for _ in range(2))
    assert not store.shared
    store.add([(JOB, Queued()), (Job("b", Request("x")), Queued())])
    assert cancel(without_shared_memory, ["a"]) == ["a"]
    assert other.states()["a"] == Cancelled()
    with store.transaction() as connection:
        connection.exec_driver_sql("UPDATE jobs SET step = 1")
        assert [row.step for row in all_rows(without_shared_memory)] == [0, 0], "the journal is in use"
    assert [row.step for row in all_rows(without_shared_memory)] == [1, 1]
    store.close()
    other.close()


def test_a_log_from_a_local_disk_is_taken_over(without_shared_memory: Path) -> None:
    source = without_shared_memory.parent / "source"
    local = Store(store_path(source))
    local.add([(JOB, Queued())])
    local.close()
    assert [row.state for row in all_rows(without_shared_memory)] == [Queued()], "looked at as it is"
    store = Store(store_path(without_shared_memory))
    assert store.states() == {"a": Queued()}
    store.cancel(["a"])
    store.close()
