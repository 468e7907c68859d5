"""What was promised is kept: a confirmed cancellation, an approval, through crash, stop and hand-over."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fake_gang import Script, World
from test_pool import DIED, Shop

from imax_dist.errors import Preempted
from imax_dist.jobs.control import all_rows, approve, cancel, retry
from imax_dist.jobs.lease import hold
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.reconcile import add_jobs
from imax_dist.jobs.state import Cancelled, Done, Failed, Proofed, Queued, Running
from imax_dist.jobs.store import Store
from imax_dist.jobs.store.files import store_path
from imax_dist.jobs.task import Refused, Stopped
from imax_dist.pipeline.request import Request

MOMENTS = [0.0, 0.3, 0.9, 1.2, 2.4, 2.9]
"""Of three steps of one second."""


def as_a_crash_leaves_it(shop: Shop, to: Path) -> Shop:
    """Another folder with the store as it is at this moment."""
    to.mkdir()
    copy = sqlite3.connect(store_path(to))
    source = sqlite3.connect(shop.store.path)
    source.backup(copy)
    copy.close()
    source.close()
    return Shop(to, World(), [])


@pytest.mark.parametrize("second", MOMENTS)
def test_a_cancelled_poster_is_not_made_after_a_crash(tmp_path: Path, second: float) -> None:
    """The driver is killed the very moment after ``imax cancel`` has said so."""
    world = World()
    shop = Shop(tmp_path / "out", world, 1)
    crashed: list[Shop] = []

    def cancel_and_crash() -> None:
        with hold(shop.store.path):
            assert cancel(shop.out, ["a"]) == ["a"]
        crashed.append(as_a_crash_leaves_it(shop, tmp_path / "crashed"))

    shop.run(stop=world.at(second, cancel_and_crash))
    (later,) = crashed
    assert [row.state_name for row in all_rows(later.out)] == ["cancelled"]
    add_jobs(later.store, [make_job(Request("a", size="64x64"), name="a")], later.out)
    assert isinstance(later.run()["a"], Cancelled)
    assert later.world.started == []


@pytest.mark.parametrize("second", MOMENTS)
@pytest.mark.parametrize("later", [0.0, 0.25, 0.5])
def test_a_cancelled_poster_is_not_made_after_a_stop(tmp_path: Path, second: float, later: float) -> None:
    """SIGTERM comes before the pool has looked for cancellations again."""
    world = World()
    shop = Shop(tmp_path, world, 2)
    cancelling = world.at(second, lambda: shop.store.cancel(["a"]))

    def stop() -> bool:
        return cancelling() or world.clock.now() >= 1000 + second + later

    with pytest.raises(Preempted):
        shop.run(stop=stop)
    states = shop.states()
    assert isinstance(states["a"], Cancelled | Done)
    assert world.heard("job.done") == [] or isinstance(states["a"], Done)
    after = shop.run()
    assert after["a"] == states["a"]
    assert isinstance(after["b"], Done)


@pytest.mark.parametrize(
    "outcome", [DIED, Refused("BadValue", "no", False), Refused("CannotWrite", "full", False), Stopped()]
)
def test_a_cancelled_poster_whose_attempt_ends_badly_is_cancelled(tmp_path: Path, outcome: Any) -> None:
    world = World()
    shop = Shop(tmp_path, world, 1)
    world.scripts["a"] = [Script(2, outcome), Script()]
    states = shop.run(stop=world.at(1.6, lambda: shop.store.cancel(["a"])))
    assert isinstance(states["a"], Cancelled)
    assert len(world.started) == 1


def test_a_proof_that_was_cancelled_does_not_wait_for_approval(tmp_path: Path) -> None:
    world = World()
    shop = Shop(tmp_path, world, 1)
    stop = world.at(2.9, lambda: shop.store.cancel(["a"]))
    assert isinstance(shop.run(stop=stop, proofs_only=True)["a"], Cancelled)
    assert approve(tmp_path, []) == []


def test_no_change_of_state_forgets_a_cancellation(tmp_path: Path) -> None:
    running = Running("g", 1.0, Queued())
    for state in (Queued(), running, Proofed(), Failed("x", "y", 1)):
        store = Store(tmp_path / f"{type(state).__name__}.sqlite")
        store.add([(make_job(Request("a"), name="a"), running)])
        store.cancel(["a"])
        assert isinstance(store.move("a", state), Cancelled)
        assert isinstance(store.states()["a"], Cancelled)
    store.add([(make_job(Request("b"), name="b"), running)])
    store.cancel(["b"])
    assert store.move("b", Done("ab", 1, 1.0, 1)) == Done("ab", 1, 1.0, 1), "it was there before"
    assert store.cancel_requested() == set()


def test_a_cancellation_loses_no_race_with_a_batch_that_begins(tmp_path: Path) -> None:
    """Cancelled as if nobody ran, while a batch had already read the job as queued."""
    world = World()
    shop = Shop(tmp_path, world, 2)
    begun = world.at(0.0, lambda: shop.store.cancel(["b"]))
    assert isinstance(shop.run(stop=begun)["b"], Cancelled | Done)
    assert (world.heard("job.done")[-1]["job"] == "b") == isinstance(shop.states()["b"], Done)


def test_a_retry_after_a_cancellation_wins(tmp_path: Path) -> None:
    shop = Shop(tmp_path, World(), 1)
    assert cancel(tmp_path, ["a"]) == ["a"]
    assert retry(tmp_path, []) == ["a"]
    assert isinstance(shop.run()["a"], Done)


@pytest.mark.parametrize("command", ["retry", "run again"])
def test_an_approved_poster_needs_no_second_approval(tmp_path: Path, command: str) -> None:
    world = World()
    shop = Shop(tmp_path, world, 1)
    shop.run(proofs_only=True)
    assert approve(tmp_path, []) == ["a"]
    world.scripts["a"] = [Script(0, DIED)]
    assert shop.run(proofs_only=True)["a"].kind == "died"
    world.scripts["a"] = [Script()]
    if command == "retry":
        assert retry(tmp_path, ["a"]) == ["a"]
    else:
        add_jobs(shop.store, [make_job(Request("a", size="64x64"), name="a")], tmp_path)
    assert isinstance(shop.run(proofs_only=True)["a"], Done)


@pytest.mark.parametrize("command", [approve, retry])
def test_whoever_comes_first_in_a_race_no_confirmed_command_is_undone(
    tmp_path: Path, command: Callable[[Path, list[str]], list[str]]
) -> None:
    """Two operators at once, an id at a time: what each was told is what became of it."""
    ids = [f"job-{number}" for number in range(12)]
    before = Proofed(1) if command is approve else Failed("died", "why", 1)
    store = Store(store_path(tmp_path))
    store.add([(make_job(Request("a", seed=n), name=name), before) for n, name in enumerate(ids)])
    answers: dict[str, list[str]] = {"command": [], "cancel": []}

    def ask(name: str, act: Callable[[Path, list[str]], list[str]], order: list[str]) -> None:
        for job in order:
            answers[name] += act(tmp_path, [job])

    both = [
        Thread(target=ask, args=("command", command, ids)),
        Thread(target=ask, args=("cancel", cancel, ids[::-1])),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    states = store.states()
    store.close()
    for job in ids:
        if job in answers["cancel"]:
            assert isinstance(states[job], Cancelled), f"{job} was cancelled"
        elif job in answers["command"]:
            assert isinstance(states[job], Queued), f"{job} was queued"
        else:
            assert states[job] == before


def test_unknown_ids_change_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path, World(), 2)
    with pytest.raises(Exception, match="has no poster x"):
        cancel(tmp_path, ["a", "x"])
    assert set(shop.states().values()) == {Queued()}


def test_many_ids_take_one_transaction(tmp_path: Path) -> None:
    import time

    store = Store(store_path(tmp_path))
    jobs = [make_job(Request("a"), name=f"job-{i}", position=i) for i in range(1000)]
    store.add((job, Queued()) for job in jobs)
    began = time.process_time()
    assert len(cancel(tmp_path, [job.id for job in jobs])) == 1000
    assert len(retry(tmp_path, [job.id for job in jobs])) == 1000
    assert time.process_time() - began < 3, "7 s and 9 s it was, with a transaction each"
