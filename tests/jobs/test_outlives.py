"""A farm that outlives clocks, disks and its own driver's absence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_gang import Script, World
from test_pool import Shop

from imax_dist.errors import BadValue, CannotWrite, FolderGone, StoreUnavailable
from imax_dist.jobs.board import Board
from imax_dist.jobs.guardian import guarded
from imax_dist.jobs.job import Job
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.state import Done, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.pipeline.request import Request


def notes(world: World) -> list[str]:
    return [event["text"] for event in world.heard("batch.note")]


def lost(world: World) -> list[Any]:
    return world.heard("gang.lost")


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_kills_no_gang(tmp_path: Path, hours: int) -> None:
    world = World()

    def jump() -> None:
        world.clock.wall_ahead += hours * 3600

    states = Shop(tmp_path, world, 2).run(stop=world.at(1.5, jump))
    assert all(isinstance(state, Done) for state in states.values())
    assert lost(world) == []
    assert notes(world) == [
        f"the clock moved by {hours * 3600:+d} s (set, or the machine slept); no deadline depends on it"
    ]


def test_a_wait_of_an_earlier_run_is_over(tmp_path: Path) -> None:
    """``not_before`` is of that run's clock, which may have been far ahead."""
    world = World()
    shop = Shop(tmp_path, world, 1)
    shop.store.move("a", Queued(not_before=1e12))
    shop.run()
    assert world.clock.now() < 1010


def test_a_driver_that_was_stopped_kills_no_gang(tmp_path: Path) -> None:
    """Ctrl-Z, a virtual machine that was paused: 100 s, of which nothing is heard."""
    world = World()

    def pause() -> None:
        world.clock.time += 100

    world.scripts["a"] = [Script(steps=200, stage_s=0.0)]
    states = Shop(tmp_path, world, 1).run(stop=world.at(2.2, pause))
    assert isinstance(states["a"], Done)
    assert lost(world) == []


def test_a_gang_that_is_silent_after_the_pause_is_still_found(tmp_path: Path) -> None:
    world = World()

    def pause() -> None:
        world.clock.time += 100

    world.scripts["a"] = [Script(2, None), Script()]
    assert isinstance(Shop(tmp_path, world, 1).run(stop=world.at(1.2, pause))["a"], Done)
    assert [event["reason"] for event in lost(world)] == ["hung"]


def test_a_slow_checkpoint_is_no_hang_and_is_named(tmp_path: Path) -> None:
    """7 s of fsync where 5 s of silence are allowed between steps."""
    world = World()
    world.scripts["a"] = [Script(saving_s=7.0)]
    assert isinstance(Shop(tmp_path, world, 1).run()["a"], Done)
    assert lost(world) == []
    said = [event["text"] for event in world.heard("note")]
    assert said == [f"writing a checkpoint took 7.0 s: the disk of {tmp_path} is slow"]


def test_a_checkpoint_that_never_ends_is_found_and_named(tmp_path: Path) -> None:
    world = World()
    world.scripts["a"] = [Script(saving_s=1e6), Script()]
    assert isinstance(Shop(tmp_path, world, 1).run()["a"], Done)
    assert "(checkpoint; 20.0 s allowed)" in lost(world)[0]["message"]


class FullDisk:
    """A guard that refuses for some seconds of the clock, or as many calls."""

    def __init__(self, world: World, until: float) -> None:
        self.world = world
        self.until = until
        self.since = 1e18

    def __call__(self) -> None:
        if self.since <= self.world.clock.now() < self.until:
            raise CannotWrite("the batch's database cannot be used: database or disk is full")


def full_disk(tmp_path: Path, world: World, *, patience_s: float) -> tuple[Pool, Store]:
    """The disk fills during the first poster and has room again after 12 s."""
    disk = FullDisk(world, until=1014.0)
    shop = Shop(tmp_path, world, 2)
    shop.store.close()
    store = Store(store_path(tmp_path), guard=disk)
    board = Board(store, patience_s=patience_s, clock=world.clock.now, sleep=world.clock.sleep)
    board.note = lambda text: world.events.append({"event": "batch.note", "text": text})
    disk.since = 1001.0
    world.scripts["a"] = [Script(steps=2)]
    return Pool(board, world.build, shop.settings, out=tmp_path, deps=world.deps()), store


def test_a_disk_that_was_full_for_a_while_ends_no_batch(tmp_path: Path) -> None:
    world = World()
    pool, store = full_disk(tmp_path, world, patience_s=60)
    # the job begins before the disk fills; its progress notes and its end fall into that time
    pool.run()
    assert {type(state) for state in store.states().values()} == {Done}
    assert any("trying again for up to 60 s" in text for text in notes(world))
    assert lost(world) == []


def test_a_disk_that_stays_full_ends_the_batch_after_the_stated_time(tmp_path: Path) -> None:
    world = World()
    pool, _ = full_disk(tmp_path, world, patience_s=5)
    with pytest.raises(CannotWrite, match="disk is full"):
        pool.run()
    assert world.clock.now() < 1014


def test_a_request_is_read_again_once_a_store_that_was_away_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store = World(), Shop(tmp_path, World(), 1).store
    board = Board(store, patience_s=60, clock=world.clock.now, sleep=world.clock.sleep)
    jobs, calls = store.jobs, []

    def away_at_first(ids: Sequence[str]) -> dict[str, Job]:
        calls.append(ids)
        if len(calls) < 3:
            raise StoreUnavailable("the database does not answer")
        return jobs(ids)

    monkeypatch.setattr(store, "jobs", away_at_first)
    assert (board.job("a").id, len(calls)) == ("a", 3)


def test_a_folder_that_went_away_is_not_waited_for(tmp_path: Path) -> None:
    world = World()

    def gone() -> None:
        raise FolderGone("moved")

    store = Store(store_path(tmp_path))
    store.add([(make_job(Request("a", size="64x64"), name="a"), Queued())])
    board = Board(store, patience_s=600, clock=world.clock.now, sleep=world.clock.sleep)
    store.close()
    board.store = Store(store_path(tmp_path), guard=gone)
    with pytest.raises(FolderGone):
        board.move("a", Queued(1))
    board.store = Store(store_path(tmp_path))
    settings = Shop(tmp_path / "x", world, 0).settings
    with pytest.raises(FolderGone):
        Pool(board, world.build, settings, out=tmp_path, deps=world.deps(check=gone)).run()


def test_a_clean_up_that_fails_changes_no_result(tmp_path: Path) -> None:
    world = World()
    shop = Shop(tmp_path, world, 1)
    build = world.build

    def stubborn(name: str, ranks: int) -> Any:
        gang = build(name, ranks)

        def destroy() -> None:
            raise BrokenPipeError("[Errno 32] Broken pipe")

        gang.destroy = destroy  # type: ignore[method-assign]
        return gang

    world.build = stubborn  # type: ignore[method-assign]
    assert isinstance(shop.run()["a"], Done)
    assert notes(world) == ["cleaning up: [Errno 32] Broken pipe"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_killed_guardian_changes_no_result(fails: bool) -> None:
    import psutil

    with pytest.raises(BadValue, match="own end") if fails else nullcontext(), guarded():
        children = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
        next(child for child in children if "guardian" in " ".join(child.cmdline())).kill()
        if fails:
            raise BadValue("the batch's own end")


def test_what_a_killed_driver_started_is_ended(tmp_path: Path) -> None:
    """Also a grandchild in a session of its own; a process of others is not touched."""
    code = (
        "import subprocess, sys, time\n"
        "from imax_dist.jobs.guardian import guarded\n"
        "with guarded():\n"
        "    subprocess.Popen(['sh', '-c', 'sleep 60 & echo $!; wait'], start_new_session=True)\n"
        "    time.sleep(60)\n"
    )
    import psutil

    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    grandchild = psutil.Process(int(driver.stdout.readline()))
    time.sleep(2.5)  # the guardian looks every 2 s
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(10)
    grandchild.wait(15)
    assert not grandchild.is_running()
