"""An open queue: jobs come, are retried and approved while gangs work; gangs follow queue and models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_gang import Script, World

from imax_dist.errors import BadConfig, CannotWrite, Preempted
from imax_dist.jobs.board import Board
from imax_dist.jobs.job import Job
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.policy import MOST_PASSED_OVER, Choice, choose, head_of, order_for
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.settings import Deadlines, PoolSettings, Retry
from imax_dist.jobs.state import Cancelled, Done, Failed, Proofed, Queued
from imax_dist.jobs.store import Store
from imax_dist.jobs.task import Refused
from imax_dist.pipeline.request import Request, key_of

LIMITS = Deadlines(first_step=20.0, step_least=5.0, step_factor=3.0, stage=20.0, stop=10.0)
BEGIN = 1000.0
DONE_STATE = Done("abc", 10, 3.0, attempts=1)
Act = Callable[[], Any]


def job(name: str, position: int, *, model: str = "embedded", priority: int = 0) -> Job:
    request = Request(name, size="64x64", model=model)
    return make_job(request, name=name, position=position, priority=priority)


class Server:
    """A pool over an open queue; ``at`` is what happens at which second of it."""

    def __init__(self, out: Path, world: World, **settings: Any) -> None:
        self.out, self.world = out, world
        self.store = Store(out / "batch.sqlite")
        self.guest = Store(out / "batch.sqlite")
        plain = {"deadlines": LIMITS, "retry": Retry(attempts=3, backoff=1.0), "idle": 20.0}
        self.settings = PoolSettings(**{**plain, **settings})

    def enlist(self, *jobs: Job, state: Queued | None = None) -> Act:
        return lambda: self.guest.add((each, state or Queued()) for each in jobs)

    def run(self, at: dict[float, Act], *, end: float) -> dict[str, Any]:
        plan = sorted(at.items())

        def stop() -> bool:
            now = self.world.clock.now() - BEGIN
            while plan and plan[0][0] <= now:
                plan.pop(0)[1]()
            return now > end

        board, deps = Board(self.store, open_ended=True), self.world.deps(stop)
        with suppress(Preempted):
            Pool(board, self.world.build, self.settings, out=self.out, deps=deps).run()
        return {row.job.id: row.state for row in self.store.rows()}

    @property
    def order(self) -> list[str]:
        return [name for _, _, name, _ in self.world.started]


@pytest.fixture
def world() -> World:
    return World()


def test_jobs_that_arrive_while_the_pool_runs_are_done(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    states = server.run({5: server.enlist(job("a", 1)), 30: server.enlist(job("b", 2), job("c", 3))}, end=60)
    assert [type(state) for state in states.values()] == [Done] * 3
    assert server.order == ["a", "b", "c"]


def test_an_urgent_job_that_arrives_late_goes_before_those_that_wait(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    usual = [job(name, i) for i, name in enumerate("abc")]
    server.run({0: server.enlist(*usual), 2: server.enlist(job("z", 9, priority=1))}, end=40)
    assert server.order == ["a", "z", "b", "c"]


def test_gangs_grow_with_the_queue_and_are_given_back(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world, gangs=3)
    alive: dict[int, int] = {}

    def count(when: int) -> Act:
        return lambda: alive.update({when: len(world.alive)})

    many = [job(name, i) for i, name in enumerate("abcdefgh")]
    at = {0: count(0), 1: server.enlist(many[0]), 4: count(4), 10: server.enlist(*many[1:]), 14: count(14)}
    server.run({**at, 60: count(60)}, end=61)
    assert alive == {0: 0, 4: 1, 14: 3, 60: 0}
    assert len(world.heard("gang.released")) == 3


def test_the_least_gangs_are_kept_without_work(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world, gangs=2, least_gangs=1)
    alive: list[int] = []
    two = server.enlist(job("a", 1), job("b", 2))
    server.run({0: two, 100: lambda: alive.append(len(world.alive))}, end=101)
    assert alive == [1]


def test_a_failed_job_is_retried_and_a_proof_approved_while_the_pool_runs(
    tmp_path: Path, world: World
) -> None:
    world.scripts["bad"] = [Script(0, Refused("BadValue", "no", False)), Script()]
    server = Server(tmp_path, world)
    seen: dict[str, Any] = {}
    again = {"bad": Queued(attempts=1), "look": Queued(attempts=1, proofed=True, approval=True)}

    def change() -> None:
        seen.update({row.job.id: row.state for row in server.guest.rows()})
        server.guest.change(again)

    look = server.enlist(job("look", 2), state=Queued(approval=True))
    states = server.run({0: server.enlist(job("bad", 1)), 1: look, 20: change}, end=60)
    assert isinstance(seen["bad"], Failed)
    assert seen["look"] == Proofed(1)
    assert [type(state) for state in states.values()] == [Done] * 2
    assert [work for _, work, name, _ in world.started if name == "look"] == ["proof", "poster"]


def test_a_job_is_cancelled_while_it_waits_for_its_approval(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    at = {0: server.enlist(job("a", 1), state=Queued(approval=True))}
    states = server.run({**at, 10: lambda: server.guest.cancel(["a"])}, end=20)
    assert states["a"] == Cancelled(1, approval=True)


def test_after_a_stop_the_next_start_goes_on(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    states = server.run({0: server.enlist(job("a", 1), job("b", 2))}, end=4.5)
    assert states == {"a": DONE_STATE, "b": Queued(attempts=1, after="stopped")}
    assert not world.alive
    states = Server(tmp_path, World()).run({}, end=20)
    assert [type(state) for state in states.values()] == [Done] * 2


def test_a_cluster_that_has_no_room_is_waited_for(tmp_path: Path, world: World) -> None:
    world.failing_builds = 6
    server = Server(tmp_path, world)
    states = server.run({0: server.enlist(job("a", 1))}, end=120)
    assert isinstance(states["a"], Done)
    assert len(world.heard("gang.failed")) == 6


def test_a_store_that_is_away_for_a_while_ends_no_open_queue(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    board = Board(server.store, open_ended=True, patience_s=60.0, clock=world.clock.now)
    look, broken = server.store.changes, [True]

    def failing(since: int) -> Any:
        if broken[0]:
            raise CannotWrite("the database went away")
        return look(since)

    def stop() -> bool:
        broken[0] = world.clock.now() < BEGIN + 10
        return world.clock.now() > BEGIN + 30

    server.store.changes = failing  # type: ignore[method-assign]
    board.note = lambda text: world.events.append({"event": "batch.note", "text": text})
    server.enlist(job("a", 1))()
    deps = world.deps(stop)
    with suppress(Preempted):
        Pool(board, world.build, server.settings, out=tmp_path, deps=deps).run()
    assert server.order == ["a"]
    assert "went away" in world.heard("batch.note")[0]["text"]


def test_jobs_of_one_model_flow_together(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    jobs = [job(f"{model}{i}", i, model=f"m/{model}") for i, model in enumerate("abababab")]
    server.run({0: server.enlist(*jobs)}, end=60)
    assert server.order == ["a0", "a2", "a4", "a6", "b1", "b3", "b5", "b7"]


def test_two_gangs_keep_two_models(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world, gangs=2)
    jobs = [job(f"{model}{i}", i, model=f"m/{model}") for i, model in enumerate("aabbabab")]
    server.run({0: server.enlist(jobs[0], jobs[2]), 10: server.enlist(jobs[1], *jobs[3:])}, end=60)
    models = {(gang, name[0]) for gang, _, name, _ in world.started}
    assert models == {("gang-0", "a"), ("gang-1", "b")}


def test_no_job_waits_for_ever_behind_those_of_another_model() -> None:
    jobs = {each.id: each for each in (job("old", 0, model="m/b"), *(job(f"new{i}", i) for i in range(3)))}
    waiting = [(name, Queued()) for name in jobs]
    kept = key_of(jobs["new0"].request)
    assert order_for(waiting, jobs, kept=kept)[0][0] == "new0"
    assert order_for(waiting, jobs, kept=kept, passed={"old": MOST_PASSED_OVER})[0][0] == "old"
    assert order_for(waiting, jobs, kept=None)[0][0] == "old"


def test_a_job_that_was_passed_over_often_goes_first(tmp_path: Path, world: World) -> None:
    server = Server(tmp_path, world)
    first = [job("a", 0), job("other", 1, model="m/b")]
    more = [job(f"more{i:02}", 2 + i) for i in range(MOST_PASSED_OVER + 4)]
    server.run({0: server.enlist(*first, *more)}, end=120)
    assert server.order.index("other") == 1 + MOST_PASSED_OVER


def test_a_higher_priority_goes_before_the_model_that_is_loaded() -> None:
    jobs = {each.id: each for each in (job("urgent", 5, model="m/b", priority=1), job("usual", 1))}
    waiting = [(name, Queued()) for name in jobs]
    assert order_for(waiting, jobs, kept=key_of(jobs["usual"].request))[0][0] == "urgent"


def test_proofs_that_keep_coming_hold_no_poster_up() -> None:
    waiting = [("poster", Queued()), ("look", Queued(approval=True)), ("look too", Queued(approval=True))]
    assert choose(waiting, now=0.0, ranks=1) == Choice("poster", ["poster"], 1)
    assert choose(waiting[1:], now=0.0, ranks=1) == Choice("proof", ["look", "look too"], 1)


def test_proofs_first_looks_behind_posters_for_a_proof() -> None:
    made = [(f"made {i}", Queued(proofed=True)) for i in range(5)]
    found = head_of([*made, ("late", Queued())], now=0.0, ranks=1, proofs_first=True, most=3)
    assert found == [("late", Queued())]
    assert len(head_of(made, now=0.0, ranks=1, proofs_first=True, most=3)) == 3


def test_jobs_that_need_a_larger_gang_block_no_other() -> None:
    large = [(f"large {i}", Queued(ranks=4)) for i in range(5)]
    found = head_of([*large, ("usual", Queued())], now=0.0, ranks=1, proofs_first=False, most=3)
    assert found == [("usual", Queued())]


def test_a_job_is_left_to_the_free_gang_that_has_its_model() -> None:
    jobs = {each.id: each for each in (job("a", 0, model="m/a"), job("b", 1, model="m/b"))}
    waiting = [(name, Queued()) for name in jobs]
    kept = key_of(jobs["a"].request)
    found = order_for(waiting, jobs, kept=kept, elsewhere={key_of(jobs["b"].request)})
    assert [name for name, _ in found] == ["a"]


def test_settings_of_an_open_queue_are_checked() -> None:
    with pytest.raises(BadConfig, match="least_gangs 2 must be between 0 and gangs 1"):
        PoolSettings(least_gangs=2)
    with pytest.raises(BadConfig, match="idle 0 must be above 0"):
        PoolSettings(idle=0)
