"""The pool's whole life with gangs that are not there: queue, failures, signals, sizes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_gang import DONE, Script, World

from imax_dist.errors import BadConfig, ClusterUnavailable, Preempted
from imax_dist.jobs.board import Board
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.make_job import make_job
from imax_dist.jobs.pool import Pool
from imax_dist.jobs.settings import Deadlines, PoolSettings, Retry
from imax_dist.jobs.state import Cancelled, Done, Failed, Proofed, Queued, Running
from imax_dist.jobs.store import Store
from imax_dist.jobs.task import Lost, Refused
from imax_dist.pipeline.request import Request

DIED = Lost("died", "rank 1 died")
MEMORY = Lost("out_of_memory", "rank 0: out of memory")
LIMITS = Deadlines(first_step=20.0, step_least=5.0, step_factor=3.0, stage=20.0, stop=10.0)


class Shop:
    """A store with jobs a, b, c ... and a pool over fake gangs."""

    def __init__(self, out: Path, world: World, jobs: int | list[str], **settings: Any) -> None:
        self.out = out
        self.world = world
        self.store = Store(out / "batch.sqlite")
        self.settings = PoolSettings(
            **{"deadlines": LIMITS, "retry": Retry(attempts=3, backoff=1.0), **settings}
        )
        names = [chr(97 + i) for i in range(jobs)] if isinstance(jobs, int) else jobs
        self.store.add(
            (make_job(Request(name, size="64x64"), name=name, position=i), Queued())
            for i, name in enumerate(names)
        )

    def run(self, *, stop: Any = lambda: False, proofs_only: bool = False) -> dict[str, Any]:
        board = Board(self.store)
        pool = Pool(
            board,
            self.world.build,
            self.settings,
            out=self.out,
            proofs_only=proofs_only,
            deps=self.world.deps(stop),
        )
        pool.run()
        return self.states()

    def states(self) -> dict[str, Any]:
        return {row.job.id: row.state for row in self.store.rows()}


@pytest.fixture
def world() -> World:
    return World()


def test_every_job_is_done_once_on_one_gang(tmp_path: Path, world: World) -> None:
    states = Shop(tmp_path, world, 5).run()
    assert all(isinstance(state, Done) for state in states.values())
    assert [job for _, _, job, _ in world.started] == ["a", "b", "c", "d", "e"]
    assert world.made == 1


def test_a_gang_that_waits_long_for_room_says_so_once(tmp_path: Path, world: World) -> None:
    """On a cluster that starts machines it may be half an hour."""
    shop = Shop(tmp_path, world, 1, ranks=2)
    coming: list[tuple[Future[Any], Any]] = []

    def background(build: Any) -> Future[Any]:
        coming.append((Future(), build))
        return coming[-1][0]

    def check() -> None:
        if coming and not coming[0][0].done() and world.clock.now() > 1125:
            coming[0][0].set_result(coming[0][1]())

    deps = replace(world.deps(check=check), background=background)
    Pool(Board(shop.store), world.build, shop.settings, out=tmp_path, deps=deps).run()
    assert isinstance(shop.states()["a"], Done)
    notes = [each["text"] for each in world.events if each["event"] == "batch.note"]
    assert notes == ["gang-0 has waited 120 s for room for 2 ranks, or for their start, and is still waiting"]


def test_two_gangs_share_the_work(tmp_path: Path, world: World) -> None:
    Shop(tmp_path, world, 6, gangs=2).run()
    assert {gang for gang, *_ in world.started} == {"gang-0", "gang-1"}
    assert sorted(job for _, _, job, _ in world.started) == list("abcdef")


def test_a_higher_priority_goes_first(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, world, 2)
    urgent = make_job(Request("urgent", size="64x64"), name="z", priority=5, position=9)
    shop.store.add([(urgent, Queued())])
    shop.run()
    assert world.started[0][2] == "z"


def test_a_lost_gang_is_destroyed_and_the_job_done_on_a_new_one(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(2, DIED), Script()]
    states = Shop(tmp_path, world, 2).run()
    assert isinstance(states["a"], Done)
    assert states["a"].attempts == 2
    assert world.made == 2
    assert world.heard("gang.lost")[0]["reason"] == "died"


def test_another_gang_is_not_disturbed_by_a_loss(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(1, DIED), Script()]
    states = Shop(tmp_path, world, 2, gangs=2).run()
    assert states["b"].attempts == 1


def test_a_permanent_error_is_not_tried_again(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, Refused("BadValue", "no such size", False))]
    states = Shop(tmp_path, world, 2).run()
    assert states["a"] == Failed("BadValue", "no such size", attempts=1)
    assert isinstance(states["b"], Done)
    assert world.made == 1


def test_a_job_that_never_gets_further_is_given_up(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, DIED)]
    states = Shop(tmp_path, world, 2).run()
    assert isinstance(states["a"], Failed)
    assert states["a"].attempts == 3
    assert "3 attempts without progress" in states["a"].message
    assert isinstance(states["b"], Done)


def test_attempts_that_get_further_are_not_counted_against_a_job(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(1, DIED), Script(2, DIED), Script(3, DIED), Script(4, DIED), Script(5)]
    assert isinstance(Shop(tmp_path, world, 1).run()["a"], Done)


def test_others_go_first_while_a_job_backs_off(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, DIED), Script()]
    Shop(tmp_path, world, 2, retry=Retry(attempts=3, backoff=50.0)).run()
    assert [job for _, _, job, _ in world.started] == ["a", "b", "a"]
    assert world.clock.now() > 1050


def test_a_gang_that_falls_silent_is_taken_for_hung(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(2, None), Script()]
    states = Shop(tmp_path, world, 1).run()
    assert isinstance(states["a"], Done)
    lost = world.heard("gang.lost")[0]
    assert lost["reason"] == "hung"
    assert world.clock.now() < 1000 + 2 + 20 + 20


def test_a_long_stage_that_reports_its_progress_is_no_hang(tmp_path: Path, world: World) -> None:
    """Five times longer than any silence that is allowed."""
    world.scripts["a"] = [Script(stage_s=100.0)]
    states = Shop(tmp_path, world, 1).run()
    assert isinstance(states["a"], Done)
    assert not world.heard("gang.lost")
    assert world.clock.now() > 1000 + 100


def test_skipped_steps_do_not_shorten_the_deadline(tmp_path: Path, world: World) -> None:
    """Their seconds are next to none, and would be the median of most of the steps."""
    world.scripts["a"] = [Script(8, skipped=frozenset({2, 3, 4, 5, 6}))]
    limits = Deadlines(first_step=20.0, step_least=0.5, step_factor=3.0, stage=20.0, stop=10.0)
    assert isinstance(Shop(tmp_path, world, 1, deadlines=limits).run()["a"], Done)
    assert not world.heard("gang.lost")


def test_every_hang_doubles_the_patience(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, None), Script(0, None), Script()]
    shop = Shop(tmp_path, world, 1)
    shop.run()
    waits = [fields["message"].split("; ")[1] for fields in world.heard("gang.lost")]
    assert waits == ["20.0 s allowed)", "40.0 s allowed)"]


def test_out_of_memory_moves_to_more_ranks_after_the_others(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, MEMORY), Script()]
    states = Shop(tmp_path, world, 3, gangs=2, ranks=2, most_ranks=4).run()
    assert isinstance(states["a"], Done)
    assert world.started[-1] == ("gang-0", "poster", "a", 4)


def test_out_of_memory_without_more_ranks_fails_with_the_reason(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, MEMORY)]
    states = Shop(tmp_path, world, 1).run()
    assert states["a"].kind == "out_of_memory"
    assert "ran on 1 rank, and most_ranks allows no more: set most_ranks: 2 for" in states["a"].message


def test_out_of_memory_fails_when_the_cluster_has_no_more_ranks(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, MEMORY)]
    world.most_ranks = 2
    states = Shop(tmp_path, world, 2, ranks=2, most_ranks=4).run()
    assert "4 ranks are not available" in states["a"].message
    assert isinstance(states["b"], Done)


def test_a_stop_signal_leaves_every_job_resumable(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, world, 3)
    with pytest.raises(Preempted, match="to resume"):
        shop.run(stop=lambda: world.clock.now() > 1004.5)
    states = shop.states()
    assert isinstance(states["a"], Done)
    assert states["b"] == Queued(attempts=1, after="stopped")
    assert states["c"] == Queued()
    assert not world.alive


def test_a_rank_that_does_not_stop_is_ended_at_the_deadline(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(0, None)]
    shop = Shop(tmp_path, world, 1)
    world.scripts["a"] = [Script(3, None)]
    stuck = World.build

    def build(name: str, ranks: int) -> Any:
        gang = stuck(world, name, ranks)
        gang.stop = [].append  # type: ignore[method-assign]
        return gang

    pool = Pool(
        Board(shop.store),
        build,
        shop.settings,
        out=tmp_path,
        deps=world.deps(lambda: world.clock.now() > 1001),
    )
    with pytest.raises(Preempted):
        pool.run()
    assert shop.states()["a"] == Queued(attempts=1, after="the batch was interrupted")
    assert world.clock.now() < 1020


def test_a_crash_of_the_pool_leaves_no_gang_and_no_running_job(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, world, 2, gangs=2)

    def broken() -> bool:
        if world.clock.now() > 1001:
            raise RuntimeError("a bug")
        return False

    with pytest.raises(RuntimeError, match="a bug"):
        shop.run(stop=broken)
    assert not world.alive
    assert not any(isinstance(state, Running) for state in shop.states().values())


def test_a_poster_that_was_done_when_its_gang_was_lost_is_not_made_again(
    tmp_path: Path, world: World
) -> None:
    shop = Shop(tmp_path, world, 2)
    job = Board(shop.store).job("a")
    build = world.build

    def finish_then_die(name: str, ranks: int) -> Any:
        folder = JobFolder.of(tmp_path, "a")
        if world.made == 1:  # the second gang: the first was lost after it had written all
            folder.poster.write_bytes(b"pixels")
            folder.checkpoints.mkdir()
            folder.finish(job.fingerprint, {"pixels_sha256": "ab", "seconds": 2.0})
        return build(name, ranks)

    world.scripts["a"] = [Script(3, DIED)]
    world.build = finish_then_die  # type: ignore[method-assign]
    states = shop.run()
    assert states["a"] == Done("ab", 6, 2.0, attempts=1)
    assert [name for _, _, name, _ in world.started] == ["a", "b"]
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_a_restart_queues_what_was_running(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, world, 1)
    shop.store.move("a", Running(gang="gang-0", since=1.0, before=Queued(attempts=1)))
    states = shop.run()
    assert states["a"].attempts == 3


def test_cancel_reaches_queued_and_running_jobs(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, world, 3)
    board = Board(shop.store)
    shop.store.cancel(["a", "c"])
    Pool(board, world.build, shop.settings, out=tmp_path, deps=world.deps()).run()
    states = shop.states()
    assert isinstance(states["a"], Cancelled)
    assert isinstance(states["b"], Done)
    assert isinstance(states["c"], Cancelled)
    assert [job for _, _, job, _ in world.started] == ["b"]


def test_a_draining_host_gives_its_job_back_without_a_count(tmp_path: Path, world: World) -> None:
    world.scripts["a"] = [Script(30), Script()]
    shop = Shop(tmp_path, world, 1)
    world.draining = {"gang-0"}

    def drained_once() -> bool:
        if world.heard("gang.lost"):
            world.draining.clear()
        return False

    states = shop.run(stop=drained_once)
    assert isinstance(states["a"], Done)
    assert world.heard("gang.lost")[0]["reason"] == "drained"


def test_a_notice_that_the_drivers_host_goes_away_ends_the_batch_as_a_signal_does(
    tmp_path: Path, world: World
) -> None:
    notice = tmp_path / "notice"
    shop = Shop(tmp_path / "out", world, 2, notice=str(notice))

    def told_later() -> bool:
        if world.heard("job.started"):
            notice.touch()
        return False

    with pytest.raises(Preempted):
        shop.run(stop=told_later)
    assert world.heard("batch.stopping")
    assert [type(state) for state in shop.states().values()] == [Queued, Queued]


def test_a_gang_that_cannot_be_built_is_tried_again_then_given_up(tmp_path: Path, world: World) -> None:
    world.failing_builds = 2
    assert isinstance(Shop(tmp_path, world, 1).run()["a"], Done)
    world.failing_builds = 100
    (tmp_path / "other").mkdir()
    with pytest.raises(ClusterUnavailable, match="no room for 1 ranks"):
        Shop(tmp_path / "other", world, 1).run()


def test_proofs_only_makes_one_proof_a_rank_and_no_poster(tmp_path: Path, world: World) -> None:
    states = Shop(tmp_path, world, 5, ranks=2).run(proofs_only=True)
    assert all(isinstance(state, Proofed) for state in states.values())
    assert {work for _, work, _, _ in world.started} == {"proof"}
    assert world.clock.now() < 1000 + 3 * 4


def test_proofs_first_makes_all_proofs_before_the_first_poster(tmp_path: Path, world: World) -> None:
    states = Shop(tmp_path, world, 4, ranks=2, proofs_first=True).run()
    assert all(isinstance(state, Done) for state in states.values())
    assert [work for _, work, _, _ in world.started] == ["proof"] * 4 + ["poster"] * 4


def test_a_folder_that_cannot_be_made_fails_its_job_only(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, world, 2, retry=Retry(attempts=2, backoff=0.1))
    (tmp_path / "a").write_text("a file where the folder should be")
    states = shop.run()
    assert states["a"].kind == "CannotWrite"
    assert isinstance(states["b"], Done)


def test_a_job_folder_that_is_a_link_out_is_refused(tmp_path: Path, world: World) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shop = Shop(out, world, 2)
    (tmp_path / "elsewhere").mkdir()
    (out / "a").symlink_to(tmp_path / "elsewhere")
    states = shop.run()
    assert "is a link" in states["a"].message
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_gang_that_can_never_be_built_is_not_tried_again(tmp_path: Path, world: World) -> None:
    tries = []

    def build(name: str, ranks: int) -> Any:
        tries.append(name)
        raise BadConfig("device cuda was asked for, but there is none")

    shop = Shop(tmp_path, world, 2)
    pool = Pool(Board(shop.store), build, shop.settings, out=tmp_path, deps=world.deps())
    with pytest.raises(BadConfig, match="there is none"):
        pool.run()
    assert tries == ["gang-0"]


def test_done_says_what_was_made(tmp_path: Path, world: World) -> None:
    done = Shop(tmp_path, world, 1).run()["a"]
    assert (done.sha256, done.bytes, done.seconds) == tuple(DONE.facts.values())
